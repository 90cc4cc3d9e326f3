"""Represent a picture by a network from coordinates to brightness."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Settings:
    side: int = 48
    width: int = 64
    omega: float = 30.0
    lr: float = 2e-3
    steps: int = 500
    batch: int = 512


class Layer(nn.Module):
    def __init__(self, n_in, n_out, omega):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.omega = omega

    def forward(self, x):
        return torch.tanh(self.omega * self.linear(x))


def picture(side):
    u = torch.linspace(-1, 1, side)
    yy, xx = torch.meshgrid(u, u, indexing="ij")
    image = torch.exp(-4 * (xx**2 + yy**2)) + 0.5 * torch.sin(3 * xx + 1) * torch.cos(2 * yy)
    return torch.stack([xx, yy], -1).reshape(-1, 2), image.reshape(-1, 1)


def main(cfg=Settings()):
    torch.manual_seed(12)
    coords, image = picture(cfg.side)
    net = nn.Sequential(
        Layer(2, cfg.width, cfg.omega),
        Layer(cfg.width, cfg.width, cfg.omega),
        Layer(cfg.width, cfg.width, cfg.omega),
        nn.Linear(cfg.width, 1),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=cfg.lr)
    for step in range(cfg.steps):
        idx = torch.randint(len(coords), (cfg.batch,))
        loss = ((net(coords[idx]) - image[idx]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            with torch.no_grad():
                psnr = -10 * torch.log10(((net(coords) - image) ** 2).mean())
            print(f"step {step + 1} loss {loss.item():.5f} psnr {psnr.item():.2f}")


if __name__ == "__main__":
    main()
