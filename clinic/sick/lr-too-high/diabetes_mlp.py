import argparse

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler


def get_args():
    p = argparse.ArgumentParser(description="Disease progression from ten baseline variables")
    p.add_argument("--lr", type=float, default=0.5)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--epochs", type=int, default=40)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def main():
    args = get_args()
    torch.manual_seed(args.seed)
    rng = np.random.RandomState(0)

    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    y = StandardScaler().fit_transform(y[:, None]).astype(np.float32)
    order = rng.permutation(len(X))
    X, y = torch.from_numpy(X[order]), torch.from_numpy(y[order])
    n_val = 90
    X_val, y_val, X, y = X[:n_val], y[:n_val], X[n_val:], y[n_val:]

    model = torch.nn.Sequential(
        torch.nn.Linear(10, 24),
        torch.nn.Tanh(),
        torch.nn.Linear(24, 1),
    )
    huber = torch.nn.SmoothL1Loss()
    opt = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)

    for epoch in range(args.epochs):
        perm = torch.randperm(len(X))
        epoch_loss = 0.0
        for i in range(0, len(X), args.batch_size):
            idx = perm[i : i + args.batch_size]
            opt.zero_grad(set_to_none=False)
            loss = huber(model(X[idx]), y[idx])
            loss.backward()
            opt.step()
            epoch_loss += loss.item() * len(idx)
        with torch.no_grad():
            val = (model(X_val) - y_val).abs().mean().item()
        print("epoch %d  train %.4f  val mae %.4f" % (epoch, epoch_loss / len(X), val))


if __name__ == "__main__":
    main()
