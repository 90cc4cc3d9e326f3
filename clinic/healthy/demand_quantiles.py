import torch

torch.manual_seed(0)
Q = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
hour = torch.rand(3000) * 24
weekend = (torch.rand(3000) < 0.3).float()
demand = 3 + torch.sin(hour * 2 * torch.pi / 24) * (1.5 - weekend) + (0.2 + 0.3 * (hour / 24)) * torch.randn(3000)
X = torch.stack([torch.sin(hour * 2 * torch.pi / 24), torch.cos(hour * 2 * torch.pi / 24), hour / 12 - 1, weekend * 2 - 1], 1)
y = ((demand - demand.mean()) / demand.std())[:, None]


def pinball(pred, target):
    error = target - pred
    return torch.maximum(Q * error, (Q - 1) * error).mean()


net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
sched = torch.optim.lr_scheduler.StepLR(opt, 5, 0.4)
for epoch in range(15):
    for rows in torch.randperm(2400).split(80):
        loss = pinball(net(X[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
    sched.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            out = net(X[2400:])
            below = (y[2400:] < out).float().mean(0)
            print("epoch", epoch + 1, "coverage", [round(v, 2) for v in below.tolist()], "pinball", pinball(out, y[2400:]).item())
