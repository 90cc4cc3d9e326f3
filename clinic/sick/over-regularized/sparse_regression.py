import torch
import torch.nn.functional as F
from sklearn.datasets import make_regression
from torch import nn

torch.manual_seed(0)

X, y = make_regression(n_samples=1200, n_features=20, n_informative=6, noise=5.0, random_state=0)
X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)[:, None]
y = y + 0.3 * torch.sin(2 * y)
X_train, y_train, X_val, y_val = X[:900], y[:900], X[900:], y[900:]

l1_lambda = 0.2  # we want few inputs to be used

net = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

for epoch in range(40):
    for idx in torch.randperm(900).split(30):
        optimizer.zero_grad()
        mse = F.mse_loss(net(X_train[idx]), y_train[idx])
        l1 = sum(p.abs().sum() for p in net.parameters())
        loss = mse + l1_lambda * l1
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val = F.mse_loss(net(X_val), y_val).item()
    if epoch % 4 == 3:
        print(f"epoch {epoch + 1}: mse {mse.item():.4f} l1 {l1.item():.2f} val {val:.4f}")
