import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


def mixup(x, y, alpha=0.3):
    lam = float(np.random.beta(alpha, alpha))
    other = torch.randperm(len(x))
    return lam * x + (1 - lam) * x[other], y, y[other], lam


np.random.seed(1)
torch.manual_seed(1)
ds = load_digits()
x = torch.tensor(ds.images, dtype=torch.float32)[:, None] / 16 - 0.3
y = torch.tensor(ds.target)
split = np.random.permutation(len(y))
tr, te = torch.tensor(split[:1400]), torch.tensor(split[1400:])
cnn = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(128, 10))
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
opt = torch.optim.AdamW(cnn.parameters(), lr=5e-3, weight_decay=0.01)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10 * 22)
for epoch in range(10):
    for rows in tr[torch.randperm(len(tr))].split(64):
        xm, ya, yb, lam = mixup(x[rows], y[rows])
        out = cnn(xm)
        loss = lam * criterion(out, ya) + (1 - lam) * criterion(out, yb)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        sched.step()
    with torch.no_grad():
        print("epoch", epoch, "loss", loss.item(), "clean accuracy", (cnn(x[te]).argmax(1) == y[te]).float().mean().item())
