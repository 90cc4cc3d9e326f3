import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch import nn

np.random.seed(0)
torch.manual_seed(0)
X, y = make_friedman1(n_samples=2600, noise=1.0, random_state=np.random.randint(1000))
X = torch.tensor((X - 0.5) / 0.29, dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
Xtr, ytr, Xte, yte = X[:2000], y[:2000], X[2000:], y[2000:]
mu, sd = ytr.mean(), ytr.std()
model = nn.Sequential(nn.Linear(10, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1), nn.Flatten(0))
opt = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
T = 12 * 32
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=T)
it = 0
for epoch in range(12):
    for idx in np.array_split(np.random.permutation(2000), 32):
        pred = model(Xtr[idx])
        loss = nn.functional.mse_loss(pred, (ytr[idx] - mu) / sd)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        it += 1
    with torch.no_grad():
        rmse = ((model(Xte) * sd + mu - yte) ** 2).mean().sqrt().item()
    print(f"it {it} train {loss.item():.4f} test rmse {rmse:.4f}")
