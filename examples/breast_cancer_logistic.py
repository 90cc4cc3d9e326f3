# Logistic regression on the breast cancer data: plain SGD on mini-batches, an L2 penalty written out.
import argparse
import os

import numpy as np
import torch
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser(description="Logistic regression on the Wisconsin breast cancer data")
parser.add_argument("--lr", type=float, default=0.3, help="learning rate at the start")
parser.add_argument("--decay", type=float, default=0.1, help="lr / (1 + decay * epoch); 0 keeps it constant")
parser.add_argument("--l2", type=float, default=1e-2, help="factor of the L2 penalty on the weights")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", help="folder for weights.pt")
args = parser.parse_args()

np.random.seed(args.seed)
torch.manual_seed(args.seed)

X, y = datasets.load_breast_cancer(return_X_y=True)
order = np.random.RandomState(7).permutation(len(X))
X, y = X[order], y[order]
n_train = 455
scaler = StandardScaler().fit(X[:n_train])
X = torch.from_numpy(scaler.transform(X)).float()
y = torch.from_numpy(y).float()
X_train, y_train = X[:n_train], y[:n_train]
X_test, y_test = X[n_train:], y[n_train:]

model = torch.nn.Linear(X.shape[1], 1)
loss_fn = torch.nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + args.decay * epoch))

for epoch in range(args.epochs):
    losses = []
    for batch in torch.randperm(n_train).split(args.batch_size):
        logits = model(X_train[batch]).squeeze(1)
        loss = loss_fn(logits, y_train[batch]) + args.l2 * model.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    if (epoch + 1) % 5 == 0 or epoch == 0:
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.5f}, lr {scheduler.get_last_lr()[0]:.4g}")

with torch.no_grad():
    logits = model(X_test).squeeze(1)
    test_loss = loss_fn(logits, y_test).item()
    accuracy = ((logits > 0) == (y_test > 0.5)).float().mean().item()
print(f"test loss {test_loss:.4f}, accuracy {100 * accuracy:.1f} %")

if args.out:
    os.makedirs(args.out, exist_ok=True)
    torch.save(model.state_dict(), os.path.join(args.out, "weights.pt"))
