"""Flag the rare events (about one in 150) in a stream of readings."""

import math

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

PRIOR = 1 / 150


def stream(n):
    x = torch.randn(n, 8)
    logit = -5.6 + 1.2 * x[:, 0] - 0.8 * x[:, 1] * x[:, 2]
    return x, torch.sigmoid(logit), torch.bernoulli(torch.sigmoid(logit))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 32)
        self.fc2 = nn.Linear(32, 1)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.constant_(self.fc2.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x))).squeeze(1)


def main():
    torch.manual_seed(4)
    x, _, y = stream(12000)
    x_val, p_val, _ = stream(4000)
    loader = DataLoader(TensorDataset(x, y), batch_size=200, shuffle=True)
    model = Detector()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-3)
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
