from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    steps: int = 800
    batch_size: int = 128
    lr: float = 3e-3
    hidden: int = 48
    bf16: bool = True
    log_every: int = 100


cfg = Config()
rng = np.random.default_rng(11)
points = rng.uniform(-2, 2, size=(4000, 2)).astype(np.float32)
heights = (np.sin(2 * points[:, 0]) * np.cos(points[:, 1]) + 0.5 * points[:, 1]).astype(np.float32)
x_all, z_all = torch.from_numpy(points), torch.from_numpy(heights)
x_train, z_train, x_val, z_val = x_all[:3200], z_all[:3200], x_all[3200:], z_all[3200:]


class Surface(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, x):
        x = torch.tanh(self.fc1(x))
        x = torch.tanh(self.fc2(x))
        return self.fc3(x)[:, 0]


def train_step(model, optimizer, x, z):
    if cfg.bf16:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pred = model(x)
        loss = F.mse_loss(pred.float(), z)
        loss.backward()
        optimizer.step()
    else:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), z)
        loss.backward()
        optimizer.step()
    return loss.item()


model = Surface(cfg.hidden)
optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=1e-4)
for step in range(1, cfg.steps + 1):
    idx = torch.from_numpy(rng.integers(0, len(x_train), cfg.batch_size))
    loss = train_step(model, optimizer, x_train[idx], z_train[idx])
    if step % cfg.log_every == 0:
        with torch.no_grad():
            rmse = F.mse_loss(model(x_val), z_val).sqrt().item()
        print(f"step {step:4d} loss {loss:.4f} rmse {rmse:.4f}")
