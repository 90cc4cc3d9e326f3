import torch
import torch.nn as nn
from sklearn.datasets import make_circles

torch.manual_seed(3)
X, y = make_circles(n_samples=1500, noise=0.1, factor=0.4, random_state=3)
X = torch.tensor(X, dtype=torch.float32) * 1.5
y = torch.tensor(y, dtype=torch.float32)
X_train, y_train, X_test, y_test = X[:1000], y[:1000], X[1000:], y[1000:]


class CircleModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer_1 = nn.Linear(2, 24)
        self.layer_2 = nn.Linear(24, 24)
        self.layer_3 = nn.Linear(24, 1)

    def forward(self, x):
        return self.layer_3(self.layer_2(self.layer_1(x))).squeeze(1)


model = CircleModel()
loss_fn = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

for epoch in range(40):
    model.train()
    for batch in torch.randperm(1000).split(50):
        loss = loss_fn(model(X_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        test_logits = model(X_test)
        test_loss = loss_fn(test_logits, y_test).item()
        test_acc = ((test_logits > 0) == (y_test > 0.5)).float().mean().item()
    if epoch % 4 == 3:
        print(f"Epoch: {epoch + 1} | Loss: {loss.item():.5f} | Test loss: {test_loss:.5f}, Test acc: {test_acc:.4f}")
