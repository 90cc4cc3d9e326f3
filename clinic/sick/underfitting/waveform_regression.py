"""Regress a waveform with several bumps."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

config = SimpleNamespace(hidden=2, steps=1500, batch_size=64, lr=1e-2, seed=17)


def waveform(x):
    return torch.sin(3.0 * x) + 0.6 * torch.cos(7.0 * x + 0.5)


class Regressor(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.net(x)


def main():
    torch.manual_seed(config.seed)
    model = Regressor(config.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    scheduler = CosineAnnealingLR(optimizer, config.steps, eta_min=1e-4)
    grid = torch.linspace(-1.7, 1.7, 400)[:, None]

    for step in range(1, config.steps + 1):
        x = 3.4 * torch.rand(config.batch_size, 1) - 1.7
        y = waveform(x) + 0.05 * torch.randn_like(x)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 100 == 0:
            with torch.no_grad():
                error = nn.functional.mse_loss(model(grid), waveform(grid)).item()
            print(f"[{step}] train={loss.item():.4f} grid={error:.5f}")


if __name__ == "__main__":
    main()
