import numpy as np, torch
from torch import nn

rng = np.random.default_rng(2)


def make(n):
    angle = rng.integers(0, 4, n)
    phase = rng.uniform(0, 6.28, n)
    yy, xx = np.mgrid[0:12, 0:12]
    theta = angle * np.pi / 4
    wave = np.cos(theta)[:, None, None] * xx + np.sin(theta)[:, None, None] * yy
    img = np.sin(wave * 1.3 + phase[:, None, None]) + 0.8 * rng.standard_normal((n, 12, 12))
    return torch.from_numpy(img[:, None]).float(), torch.from_numpy(angle)


x, y = make(1200)
xt, yt = make(400)
torch.manual_seed(2)
net = nn.Sequential(
    nn.Conv2d(1, 12, 5, padding=2), nn.GroupNorm(3, 12), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Linear(24, 4))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
sched = torch.optim.lr_scheduler.PolynomialLR(opt, total_iters=600, power=1.0)
for epoch in range(4):
    for b in torch.randperm(len(x)).split(8):
        l = nn.functional.cross_entropy(net(x[b]), y[b])
        opt.zero_grad(); l.backward(); opt.step(); sched.step()
    with torch.no_grad():
        out = net(xt)
        print('epoch', epoch, 'test', nn.functional.cross_entropy(out, yt).item(), 'accuracy', (out.argmax(1) == yt).float().mean().item())
