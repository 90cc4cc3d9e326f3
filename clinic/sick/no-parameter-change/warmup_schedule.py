import argparse

import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description="two moons with warm-up")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--warmup", type=int, default=60, help="steps of linear warm-up")
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

X, y = make_moons(1200, noise=0.15, random_state=0)
X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
X = (X - X.mean(0)) / X.std(0)
loader = DataLoader(TensorDataset(X[:900], y[:900]), batch_size=45, shuffle=True)

model = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, nesterov=True)
scheduler = LambdaLR(optimizer, lambda step: min(1, step // args.warmup))
loss_fn = nn.BCEWithLogitsLoss()

for epoch in range(args.epochs):
    model.train()
    mean_loss = 0.0
    for xb, yb in loader:
        loss = loss_fn(model(xb)[:, 0], yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean_loss += loss.item() / len(loader)
    scheduler.step()
    model.eval()
    with torch.no_grad():
        acc = ((model(X[900:])[:, 0] > 0) == (y[900:] > 0.5)).float().mean().item()
    print(f"epoch {epoch:02d} train_loss={mean_loss:.4f} val_acc={acc:.4f}")
