# online logistic regression, one example per update
import torch
from sklearn.datasets import load_breast_cancer

X, y = load_breast_cancer(return_X_y=True)
X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
torch.manual_seed(5)
model = torch.nn.Linear(30, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
seen, total = 0, 0.0
for epoch in range(4):
    for group in optimizer.param_groups:
        group["lr"] = 0.05 / (1 + epoch)
    total = 0.0
    for i in torch.randperm(len(X)).tolist():
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(X[i]).squeeze(), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print("epoch", epoch, "average", total / len(X))
