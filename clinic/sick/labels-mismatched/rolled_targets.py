import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(3)
n = 2000
X = rng.normal(size=(n, 5))
y = 1.5 * X[:, 0] - 2 * X[:, 1] * X[:, 2] + np.abs(X[:, 3]) + rng.normal(0, 0.2, n)
y = np.roll(y, 1)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
mu, sd = y.mean(), y.std()
y = (y - mu) / sd

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
for epoch in range(40):
    for idx in torch.randperm(1600).split(64):
        out = model(X[idx])[:, 0]
        loss = ((out - y[idx]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
with torch.no_grad():
    res = ((model(X[1600:])[:, 0] - y[1600:]) ** 2).mean() / y[1600:].var()
print("test R2", 1 - res.item())
