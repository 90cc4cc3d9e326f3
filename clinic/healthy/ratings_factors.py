import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(12)
USERS, ITEMS, RANK = 150, 120, 3
taste, traits = rng.normal(size=(USERS, RANK)), rng.normal(size=(ITEMS, RANK))
u, i = rng.integers(0, USERS, 9000), rng.integers(0, ITEMS, 9000)
rating = (taste[u] * traits[i]).sum(1) / RANK ** 0.5 + 3.5 + 0.2 * rng.normal(size=9000)
u, i, rating = torch.tensor(u), torch.tensor(i), torch.tensor(rating, dtype=torch.float32)


class MF(nn.Module):
    def __init__(self, k=4):
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, k), nn.Embedding(ITEMS, k)
        self.user_bias, self.item_bias = nn.Embedding(USERS, 1), nn.Embedding(ITEMS, 1)
        self.mean = nn.Parameter(torch.tensor(3.5))
        for e in (self.users, self.items):
            nn.init.normal_(e.weight, std=0.3)
        for e in (self.user_bias, self.item_bias):
            nn.init.zeros_(e.weight)

    def forward(self, u, i):
        return (self.users(u) * self.items(i)).sum(1) + (self.user_bias(u) + self.item_bias(i)).squeeze(1) + self.mean


torch.manual_seed(12)
model = MF()
loader = DataLoader(TensorDataset(u[:7500], i[:7500], rating[:7500]), batch_size=125, shuffle=True)
opt = torch.optim.Adam(model.parameters(), lr=0.04, weight_decay=2e-5)
sched = torch.optim.lr_scheduler.StepLR(opt, 5, 0.3)
for epoch in range(14):
    for uu, ii, r in loader:
        loss = ((model(uu, ii) - r) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    sched.step()
    with torch.no_grad():
        rmse = ((model(u[7500:], i[7500:]) - rating[7500:]) ** 2).mean().sqrt()
    print("epoch", epoch + 1, "mse", loss.item(), "held-out rmse", rmse.item())
