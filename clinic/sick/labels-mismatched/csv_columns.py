# Concrete strength from a table: features in one file, lab results in another.
import csv
import io

import numpy as np
import torch
from sklearn.datasets import make_regression
from torch import nn

torch.manual_seed(6)


def export_tables(n=900):
    """What the lab sent: two csv files with one line per specimen."""
    X, y = make_regression(n, 8, n_informative=6, noise=5.0, random_state=6)
    mix, strength = io.StringIO(), io.StringIO()
    csv.writer(mix).writerows(X.round(4).tolist())
    out = csv.writer(strength)
    out.writerow(["specimen", "strength"])
    out.writerows([i, round(v, 3)] for i, v in enumerate(y))
    return mix.getvalue(), strength.getvalue()


def read(mix, strength):
    features = [list(map(float, row)) for row in list(csv.reader(io.StringIO(mix)))[1:]]
    results = [float(row[1]) for row in list(csv.reader(io.StringIO(strength)))[1:]]
    n = min(len(features), len(results))
    return np.array(features[:n]), np.array(results[:n])


X, y = read(*export_tables())
X = (X - X.mean(0)) / X.std(0)
y = (y - y.mean()) / y.std()
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).unsqueeze(1)
train, valid = slice(0, 700), slice(700, None)

net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
opt = torch.optim.Adam(net.parameters(), lr=5e-3, weight_decay=1e-4)
for epoch in range(30):
    for idx in torch.randperm(700).split(35):
        loss = nn.functional.mse_loss(net(X[train][idx]), y[train][idx])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    if (epoch + 1) % 5 == 0:
        with torch.no_grad():
            val = nn.functional.mse_loss(net(X[valid]), y[valid]).item()
        print(f"epoch {epoch + 1}: train {loss.item():.4f} valid {val:.4f}")
