import torch
from sklearn.datasets import make_moons

torch.manual_seed(0)
X, y = make_moons(1000, noise=0.15, random_state=0)
X = torch.tensor(X - X.mean(0)).float()
y = torch.tensor(y).float()
net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
opt = torch.optim.Adam(net.parameters(), lr=0.2)
bce = torch.nn.BCEWithLogitsLoss()
for i in range(60):
    rows = torch.randint(0, 700, (64,))
    loss = bce(net(X[rows]).squeeze(), y[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if i % 10 == 9:
        for g in opt.param_groups:
            g["lr"] *= 0.7
        with torch.no_grad():
            print(i + 1, "loss", loss.item(), "test loss", bce(net(X[700:]).squeeze(), y[700:]).item())
