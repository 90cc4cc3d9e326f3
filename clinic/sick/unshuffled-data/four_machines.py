"""Predict wear from vibration features of four machines, each with its own records."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

GAINS = (1.0, -1.0, 1.5, -1.5)
rng = np.random.default_rng(21)


def machine(number, n):
    x = rng.standard_normal((n, 5))
    gain = GAINS[number]
    wear = gain * np.tanh(x[:, 0]) + 0.3 * x[:, 1] * x[:, 2] + 0.5 * gain + 0.05 * rng.standard_normal(n)
    x = np.hstack([x, np.tile(np.eye(4)[number], (n, 1))])
    return torch.tensor(x, dtype=torch.float32), torch.tensor(wear[:, None], dtype=torch.float32)


train_sets = [TensorDataset(*machine(k, 500)) for k in range(4)]
val_x, val_y = (torch.cat(parts) for parts in zip(*[machine(k, 150) for k in range(4)]))

loader = DataLoader(ConcatDataset(train_sets), batch_size=25, drop_last=True)
model = nn.Sequential(nn.Linear(9, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
criterion = nn.MSELoss()

for epoch in range(10):
    model.train()
    history = []
    for xb, yb in loader:
        loss = criterion(model(xb), yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    model.eval()
    with torch.no_grad():
        val = criterion(model(val_x), val_y).item()
    print(f"epoch {epoch + 1:02d}: train mse {np.mean(history):.4f}, val mse {val:.4f}")
