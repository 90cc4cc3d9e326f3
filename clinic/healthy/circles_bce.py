import torch
import torch.nn as nn
from sklearn.datasets import make_circles

X, y = make_circles(1500, noise=0.12, factor=0.45)
X = torch.tensor(X, dtype=torch.float32) / 0.6
y = torch.tensor(y, dtype=torch.float32).view(-1, 1)
net = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1), nn.Sigmoid())
bce = nn.BCELoss()
adam = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(16):
    if epoch in (8, 12):
        adam.param_groups[0]["lr"] /= 4
    for k in torch.randperm(1000).split(40):
        adam.zero_grad()
        loss = bce(net(X[k]), y[k])
        loss.backward()
        adam.step()
    if epoch % 4 == 3:
        with torch.no_grad():
            p = net(X[1000:])
            print(f"{epoch + 1} loss {loss.item():.4f} test bce {bce(p, y[1000:]).item():.4f} accuracy {((p > 0.5) == (y[1000:] > 0.5)).float().mean().item():.3f}")
