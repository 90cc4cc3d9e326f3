"""Predict wear from vibration features of four machines, each with its own records."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

rng = np.random.default_rng(21)


def machine(gain, offset, n):
    x = rng.normal(offset, 0.5, size=(n, 5))
    wear = gain * np.tanh(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.5 * gain + 0.05 * rng.normal(size=n)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(wear[:, None], dtype=torch.float32)


settings = [(1.0, -1.2), (-1.0, -0.4), (2.0, 0.4), (-2.0, 1.2)]
train_sets = [TensorDataset(*machine(*s, 500)) for s in settings]
val_x, val_y = (torch.cat(parts) for parts in zip(*[machine(*s, 150) for s in settings]))

loader = DataLoader(ConcatDataset(train_sets), batch_size=25, drop_last=True)
model = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
criterion = nn.MSELoss()

for epoch in range(20):
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
