import copy
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


class EMA:
    def __init__(self, model, decay=0.98):
        self.shadow = copy.deepcopy(model)
        self.decay = decay
        for p in self.shadow.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters()):
            s.data.mul_(self.decay).add_(p.data, alpha=1 - self.decay)


bunch = load_digits()
data = torch.tensor(bunch.data, dtype=torch.float32) / 16
data = (data - data.mean()) / data.std()
target = torch.tensor(bunch.target)
train = torch.arange(len(data)) % 5 != 0
x, y, xv, yv = data[train], target[train], data[~train], target[~train]
model = nn.Sequential(nn.Linear(64, 48), nn.Mish(), nn.Linear(48, 10))
ema = EMA(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-3)
for epoch in range(10):
    for g in optimizer.param_groups:
        g["lr"] = 0.2 if epoch < 6 else 0.04
    for i in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[i]), y[i]).backward()
        optimizer.step()
        ema.update(model)
    with torch.no_grad():
        raw = nn.functional.cross_entropy(model(xv), yv).item()
        averaged = nn.functional.cross_entropy(ema.shadow(xv), yv).item()
    print(f"epoch {epoch}: raw {raw:.4f} averaged {averaged:.4f}")
