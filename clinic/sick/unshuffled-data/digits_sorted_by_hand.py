import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
d = load_digits()
rng = np.random.RandomState(0)
pick = rng.permutation(len(d.target))
test_idx, train_idx = pick[:397], pick[397:]
train_idx = train_idx[np.argsort(d.target[train_idx], kind="stable")]
Xtr, ytr = torch.tensor(d.data[train_idx] / 16).float(), torch.tensor(d.target[train_idx])
Xte, yte = torch.tensor(d.data[test_idx] / 16).float(), torch.tensor(d.target[test_idx])

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), nn.LogSoftmax(dim=1))
opt = torch.optim.SGD(model.parameters(), lr=0.1)
bs = 20
for epoch in range(25):
    for b in range(len(Xtr) // bs):
        xb, yb = Xtr[b * bs : (b + 1) * bs], ytr[b * bs : (b + 1) * bs]
        logp = model(xb)
        loss = -logp[torch.arange(len(yb)), yb].mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        acc = (model(Xte).argmax(1) == yte).float().mean().item()
    print(f"epoch {epoch} loss {loss.item():.4f} test acc {acc:.4f}")
