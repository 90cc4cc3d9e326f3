import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(1500, 2) * 4 - 2
target = torch.sin(2 * x[:, :1]) * torch.cos(x[:, 1:]) + 0.05 * torch.randn(1500, 1)
net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
optim = torch.optim.Adam(net.parameters(), lr=5e-3)
sched = torch.optim.lr_scheduler.ExponentialLR(optim, gamma=0.97)
for ep in range(30):
    for idx in torch.randperm(1200).split(40):
        err = net(x[idx]) - target[idx]
        loss = torch.mean(err * err)
        optim.zero_grad()
        loss.backward()
        optim.step()
        sched.step()
    if ep % 5 == 4:
        with torch.no_grad():
            print(f"ep {ep} train {loss.item():.4f} test mse {(net(x[1200:]) - target[1200:]).pow(2).mean().item():.4f}")
