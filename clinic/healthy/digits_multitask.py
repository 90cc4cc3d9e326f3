import torch
from torch import nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(30)
d = load_digits()
x = torch.tensor(d.data, dtype=torch.float32) / 16
y = torch.tensor(d.target)
ink = x.mean(1, keepdim=True)
ink = (ink - ink.mean()) / ink.std()
keys = torch.randperm(len(x))
tr, te = keys[:1400], keys[1400:]


class MultiTask(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"label": nn.Linear(64, 10), "image": nn.Linear(64, 64), "ink": nn.Linear(64, 1)})

    def forward(self, x):
        h = self.shared(x)
        return {k: head(h) for k, head in self.heads.items()}


def losses(out, i):
    return {
        "label": F.cross_entropy(out["label"], y[i]),
        "image": F.mse_loss(out["image"], x[i]),
        "ink": F.mse_loss(out["ink"], ink[i]),
    }


weights = {"label": 1.0, "image": 5.0, "ink": 0.5}
model = MultiTask()
opt = torch.optim.Adam(model.parameters(), lr=0.01)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.8)
for epoch in range(14):
    for i in tr[torch.randperm(len(tr))].split(64):
        parts = losses(model(x[i]), i)
        loss = sum(weights[k] * v for k, v in parts.items())
        opt.zero_grad()
        loss.backward()
        opt.step()
    sched.step()
    with torch.no_grad():
        parts = losses(model(x[te]), te)
    if epoch % 2 == 1:
        print(epoch + 1, {k: round(v.item(), 4) for k, v in parts.items()}, "total", round(sum(weights[k] * v.item() for k, v in parts.items()), 4))
