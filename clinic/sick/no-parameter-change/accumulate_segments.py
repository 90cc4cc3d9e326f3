"""Classify noisy sine segments by frequency; small batches are accumulated before each update."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class TrainConfig:
    n_train: int = 480
    batch_size: int = 16
    accumulation_steps: int = 32
    epochs: int = 25
    lr: float = 3e-3


class ConvNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 12, 7, padding=3)
        self.conv2 = nn.Conv1d(12, 24, 5, stride=2, padding=2)
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.head(x.mean(-1))


def make_segments(n, classes=4, length=48):
    label = torch.randint(0, classes, (n,))
    t = torch.linspace(0, 1, length)
    freq = 3.0 + 3.0 * label[:, None]
    phase = 6.283 * torch.rand(n, 1)
    signal = torch.sin(6.283 * freq * t + phase) + 0.3 * torch.randn(n, length)
    return signal.unsqueeze(1), label


def train(cfg):
    x, y = make_segments(cfg.n_train)
    x_val, y_val = make_segments(400)
    model = ConvNet(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    for epoch in range(cfg.epochs):
        optimizer.zero_grad()
        order = torch.randperm(cfg.n_train)
        epoch_loss = 0.0
        for i in range(0, cfg.n_train // cfg.batch_size):
            idx = order[i * cfg.batch_size : (i + 1) * cfg.batch_size]
            loss = F.cross_entropy(model(x[idx]), y[idx]) / cfg.accumulation_steps
            loss.backward()
            epoch_loss += loss.item() * cfg.accumulation_steps
            if (i + 1) % cfg.accumulation_steps == 0:
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            acc = (model(x_val).argmax(-1) == y_val).float().mean().item()
        print(f"{epoch + 1}/{cfg.epochs} loss {epoch_loss * cfg.batch_size / cfg.n_train:.4f} accuracy {acc:.4f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    train(TrainConfig())
