import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(8)
d = load_digits()
x, y = torch.tensor(d.data).float().div(16).sub(.3), torch.tensor(d.target)
p = torch.randperm(1797)
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=0.04, eps=1e-2)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 9 * 22)
for epoch in range(9):
    for b in p[:1400][torch.randperm(1400)].split(64):
        loss = nn.functional.cross_entropy(net(x[b]), y[b])
        opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    with torch.no_grad():
        v = nn.functional.cross_entropy(net(x[p[1400:]]), y[p[1400:]]).item()
    print(f'{epoch} loss {loss.item():.4f} val {v:.4f}')
