import numpy as np
import torch
from sklearn.datasets import make_friedman1
from sklearn.preprocessing import StandardScaler

np.random.seed(3)
torch.manual_seed(3)

X, y = make_friedman1(n_samples=1200, n_features=6, noise=0.0)
X = StandardScaler().fit_transform(X)
y = (y - y.mean()) / y.std()
y[:1000] += 0.2 * np.random.randn(1000)  # measured with an error
X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32).unsqueeze(1)
X_tr, y_tr, X_te, y_te = X[:1000], y[:1000], X[1000:], y[1000:]

net = torch.nn.Sequential(
    torch.nn.Linear(6, 64),
    torch.nn.GELU(),
    torch.nn.Linear(64, 1),
)
opt = torch.optim.SGD(net.parameters(), lr=0.015, momentum=0.9)
epochs = 10
batch = 4

for epoch in range(epochs):
    order = torch.randperm(1000)
    for b in order.split(batch):
        loss = ((net(X_tr[b]) - y_tr[b]) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        tr = ((net(X_tr) - y_tr) ** 2).mean().item()
        te = ((net(X_te) - y_te) ** 2).mean().item()
    print(f"epoch {epoch:2d}  train mse {tr:.5f}  test mse {te:.5f}")
