"""Sentiment of short reviews: words carry a little sentiment each; labels are noisy."""

import argparse
import random

import torch
from torch import nn
from torch.nn import functional as F

VOCAB = 250


class BagOfWords(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.embedding = nn.EmbeddingBag(VOCAB, dim, mode="mean")
        self.fc = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, words):
        return self.fc(self.embedding(words)).squeeze(-1)


def reviews(n, sentiment, rng):
    words = torch.tensor([[rng.randrange(VOCAB) for _ in range(15)] for _ in range(n)])
    score = sentiment[words].sum(1)
    labels = (torch.sigmoid(0.7 * score) > torch.tensor([rng.random() for _ in range(n)])).float()
    return words, labels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    args = parser.parse_args()

    rng = random.Random(0)
    sentiment = torch.tensor([rng.gauss(0, 1) for _ in range(VOCAB)])
    train_x, train_y = reviews(1000, sentiment, rng)
    val_x, val_y = reviews(1000, sentiment, rng)
    model = BagOfWords(args.dim)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)

    for epoch in range(args.epochs):
        model.train()
        for idx in torch.randperm(len(train_x)).split(25):
            loss = F.binary_cross_entropy_with_logits(model(train_x[idx]), train_y[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            train_loss = F.binary_cross_entropy_with_logits(model(train_x), train_y).item()
            logits = model(val_x)
            val_loss = F.binary_cross_entropy_with_logits(logits, val_y).item()
            val_acc = ((logits > 0) == (val_y > 0.5)).float().mean().item()
        print(f"epoch {epoch:2d}: train {train_loss:.3f} val_loss {val_loss:.3f} val_acc {val_acc:.3f}")


if __name__ == "__main__":
    main()
