"""Autoencoder over sensor windows; the objective is a weighted sum of reconstruction and smoothness."""

import math

import torch
from torch import nn

WEIGHTS = {"reconstruction": 1e-7, "smoothness": 1e-9}


class AutoEncoder(nn.Module):
    def __init__(self, length, code):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(length, 40), nn.SiLU(), nn.Linear(40, code))
        self.dec = nn.Sequential(nn.Linear(code, 40), nn.SiLU(), nn.Linear(40, length))

    def forward(self, x):
        return self.dec(self.enc(x))


def windows(n, length=32):
    t = torch.linspace(0, 2 * math.pi, length)
    amp, phase = 0.5 + torch.rand(n, 1), 2 * math.pi * torch.rand(n, 1)
    slope = torch.randn(n, 1)
    return amp * torch.sin(t + phase) + 0.2 * slope * (t - math.pi) + 0.05 * torch.randn(n, length)


def objective(recon, x):
    terms = {
        "reconstruction": (recon - x).pow(2).mean(),
        "smoothness": (recon[:, 1:] - recon[:, :-1]).pow(2).mean(),
    }
    return sum(WEIGHTS[name] * value for name, value in terms.items()), terms


def train():
    data, held_out = windows(2000), windows(400)
    net = AutoEncoder(32, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(12):
        for x in data[torch.randperm(len(data))].split(40):
            loss, _ = objective(net(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            _, terms = objective(net(held_out), held_out)
        print(f"epoch {epoch} loss {loss.item():.3e} reconstruction {terms['reconstruction'].item():.5f}")


train()
