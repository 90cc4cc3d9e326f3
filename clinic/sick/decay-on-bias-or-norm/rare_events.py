"""Flag the rare events (about one in 150) in a stream of readings."""

import math

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

PRIOR = 1 / 150


def stream(n):
    x = torch.randn(n, 8)
    logit = -5.6 + 0.8 * x[:, 0] - 0.5 * x[:, 1] * x[:, 2]
    pairs = torch.stack([x[:, i] * x[:, j] for i in range(8) for j in range(i)], dim=1)
    return torch.cat([x, pairs], dim=1), torch.sigmoid(logit), torch.bernoulli(torch.sigmoid(logit))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(36, 1)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.constant_(self.fc.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x):
        return self.fc(x).squeeze(1)


def main():
    torch.manual_seed(4)
    x, _, y = stream(10000)
    x_val, p_val, _ = stream(4000)
    loader = DataLoader(TensorDataset(x, y), batch_size=200, shuffle=True)
    model = Detector()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8 * len(loader))
    for epoch in range(8):
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            val = criterion(model(x_val), p_val).item()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f} val loss {val:.5f}")


if __name__ == "__main__":
    main()
