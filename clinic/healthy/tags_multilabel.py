import torch
from sklearn.datasets import make_multilabel_classification

torch.manual_seed(0)
X, Y = make_multilabel_classification(2400, 20, n_classes=6, n_labels=2, random_state=3)
X = torch.tensor(X, dtype=torch.float32)
X = (X - X.mean(0)) / X.std(0)
Y = torch.tensor(Y, dtype=torch.float32)
model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 6))
loss_fn = torch.nn.MultiLabelSoftMarginLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(16):
    if epoch == 10:
        optimizer.param_groups[0]['lr'] = 6e-4
    for i in torch.randperm(1800).split(60):
        optimizer.zero_grad()
        out = loss_fn(model(X[i]), Y[i])
        out.backward()
        optimizer.step()
    if epoch % 4 == 3:
        with torch.no_grad():
            logits = model(X[1800:])
            print('epoch', epoch + 1, 'bce', out.item(), 'test bce', loss_fn(logits, Y[1800:]).item(), 'exact', ((logits > 0) == (Y[1800:] > 0)).all(1).float().mean().item())
