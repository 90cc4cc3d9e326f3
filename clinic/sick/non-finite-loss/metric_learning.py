"""Embed the digits so that equal ones lie close together (pairwise contrastive loss)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class PairwiseContrastive(nn.Module):
    def __init__(self, margin=2.0):
        super().__init__()
        self.margin = margin

    def forward(self, emb, label):
        diff = emb.unsqueeze(0) - emb.unsqueeze(1)
        dist = torch.sqrt((diff**2).sum(-1))
        same = label.unsqueeze(0) == label.unsqueeze(1)
        pull = dist[same].pow(2).mean()
        push = F.relu(self.margin - dist[~same]).pow(2).mean()
        return pull + push


def nearest_neighbour_accuracy(net, x_ref, y_ref, x, y):
    with torch.no_grad():
        nearest = torch.cdist(net(x), net(x_ref)).argmin(dim=1)
    return (y_ref[nearest] == y).float().mean().item()


def main():
    digits = load_digits()
    x = torch.tensor(digits.data / 8.0 - 1.0, dtype=torch.float32)
    y = torch.tensor(digits.target)
    x_train, y_train, x_test, y_test = x[:1400], y[:1400], x[1400:], y[1400:]
    loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True, drop_last=True)

    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    criterion = PairwiseContrastive()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(1, 16):
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = criterion(net(xb), yb)
            loss.backward()
            optimizer.step()
        acc = nearest_neighbour_accuracy(net, x_train, y_train, x_test, y_test)
        print(f"epoch {epoch:2d} | loss {loss.item():.4f} | 1-nn accuracy {acc:.4f}")


main()
