import math

import torch
import torch.nn as nn

# two interleaved spirals

torch.manual_seed(8)


def spirals(n, noise=0.05):
    r = torch.sqrt(torch.rand(n)) * 2.0 * math.pi
    label = torch.randint(0, 2, (n,))
    angle = r * 0.9 + label * math.pi
    points = torch.stack([r * torch.cos(angle), r * torch.sin(angle)], 1) / 3.5
    return points + noise * torch.randn(n, 2), label.float()


def make_model():
    net = nn.Sequential(
        nn.Linear(2, 48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.ReLU(),
        nn.Linear(48, 1),
    )
    for p in net.parameters():
        nn.init.normal_(p, std=0.001)
    return net


x, y = spirals(2000)
xv, yv = spirals(500)
net = make_model()
opt = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
bce = nn.BCEWithLogitsLoss()

for step in range(1500):
    idx = torch.randint(0, len(x), (64,))
    loss = bce(net(x[idx]).squeeze(1), y[idx])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 100 == 99:
        with torch.no_grad():
            vl = bce(net(xv).squeeze(1), yv)
        print(f"step {step + 1} loss {loss.item():.4f} val {vl.item():.4f}")
