"""A two-layer network on iris without torch.nn or torch.optim: loss and update are written out."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_iris


def init(n_in, n_hidden, n_out):
    def matrix(rows, columns):
        return (torch.randn(rows, columns) * (2 / rows) ** 0.5).requires_grad_()

    w1, b1 = matrix(n_in, n_hidden), torch.zeros(n_hidden, requires_grad=True)
    w2, b2 = matrix(n_hidden, n_out), torch.zeros(n_out, requires_grad=True)
    return [w1, b1, w2, b2]


def forward(params, x):
    w1, b1, w2, b2 = params
    return torch.relu(x @ w1 + b1) @ w2 + b2


def cross_entropy(logits, y):
    return (torch.logsumexp(logits, dim=1) - logits[torch.arange(len(y)), y]).mean()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--lr", type=float, default=0.02)
    ap.add_argument("--momentum", type=float, default=0.9)
    ap.add_argument("--decay", type=float, default=0.97, help="factor on the rate after each epoch")
    ap.add_argument("--epochs", type=int, default=80)
    ap.add_argument("--batch-size", type=int, default=10)
    ap.add_argument("--hidden", type=int, default=16)
    ap.add_argument("--seed", type=int, default=3)
    ap.add_argument("--out", type=Path, help="folder for weights.npz")
    a = ap.parse_args()
    random.seed(a.seed)
    torch.manual_seed(a.seed)

    iris = load_iris()
    x = torch.tensor(iris.data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(iris.target)
    rows = list(range(len(x)))
    random.Random(0).shuffle(rows)
    train, test = rows[:120], rows[120:]

    params = init(4, a.hidden, 3)
    velocity = [torch.zeros_like(p) for p in params]
    lr = a.lr
    for epoch in range(a.epochs):
        random.shuffle(train)
        loss_sum = 0.0
        for i in range(0, len(train), a.batch_size):
            batch = train[i : i + a.batch_size]
            loss = cross_entropy(forward(params, x[batch]), y[batch])
            loss.backward()
            with torch.no_grad():
                for p, v in zip(params, velocity, strict=True):
                    v.mul_(a.momentum).add_(p.grad)
                    p -= lr * v
                    p.grad = None
            loss_sum += loss.item() * len(batch)
        lr *= a.decay
        if epoch % 10 == 9:
            with torch.no_grad():
                accuracy = (forward(params, x[test]).argmax(1) == y[test]).float().mean()
            print(f"epoch {epoch + 1}, loss {loss_sum / len(train):.4f}, test accuracy {accuracy:.3f}")

    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        np.savez(a.out / "weights.npz", *(p.detach().numpy() for p in params))


if __name__ == "__main__":
    main()
