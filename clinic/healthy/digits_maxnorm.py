import math
import torch
from torch import nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MAX_NORM = 3.0


def init(m):
    if isinstance(m, nn.Linear):
        m.weight.data.normal_(0, math.sqrt(2 / m.in_features))
        m.bias.data.zero_()


def project(model):
    for m in model.modules():
        if isinstance(m, nn.Linear):
            norms = m.weight.data.norm(dim=1, keepdim=True).clamp(min=1e-6)
            m.weight.data *= (MAX_NORM / norms).clamp(max=1.0)


torch.manual_seed(31)
d = load_digits()
xa, xb, ya, yb = train_test_split(d.data / 8 - 0.6, d.target, random_state=31)
xa, xb = torch.tensor(xa, dtype=torch.float32), torch.tensor(xb, dtype=torch.float32)
ya, yb = torch.tensor(ya), torch.tensor(yb)
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)).apply(init)
opt = torch.optim.SGD(net.parameters(), lr=0.15, momentum=0.9)
for epoch in range(10):
    opt.param_groups[0]["lr"] = 0.15 * 0.7 ** epoch
    net.train()
    total = 0
    for rows in torch.randperm(len(xa)).split(64):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(xa[rows]), ya[rows])
        loss.backward()
        opt.step()
        project(net)
        total += loss.data * len(rows)
    net.eval()
    with torch.no_grad():
        valid = nn.functional.cross_entropy(net(xb), yb)
    print(f"epoch {epoch}: train {total / len(xa):.4f}, valid {valid:.4f}")
