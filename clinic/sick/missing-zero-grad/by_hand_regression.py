# Two-layer regression on Friedman's benchmark, gradient descent written out.
import math

import torch
from sklearn.datasets import make_friedman1
from sklearn.model_selection import train_test_split

X, y = make_friedman1(n_samples=800, n_features=6, noise=0.5, random_state=3)
X = torch.tensor(X, dtype=torch.float64)
X = (X - X.mean(0)) / X.std(0)
y = torch.tensor(y, dtype=torch.float64)
y = (y - y.mean()) / y.std()

Xtr, Xte, ytr, yte = train_test_split(X, y, test_size=200, random_state=3)

n_in, n_hidden = X.shape[1], 16
W1 = (torch.randn(n_in, n_hidden, dtype=torch.float64) / math.sqrt(n_in)).requires_grad_()
b1 = torch.zeros(n_hidden, dtype=torch.float64, requires_grad=True)
W2 = (torch.randn(n_hidden, dtype=torch.float64) / math.sqrt(n_hidden)).requires_grad_()
b2 = torch.zeros((), dtype=torch.float64, requires_grad=True)
params = [W1, b1, W2, b2]


def predict(inputs):
    return torch.tanh(inputs @ W1 + b1) @ W2 + b2


lr = 0.05
for it in range(2001):
    loss = ((predict(Xtr) - ytr) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for p in params:
            p -= lr * p.grad
    if it % 200 == 0:
        with torch.no_grad():
            r2 = 1 - ((predict(Xte) - yte) ** 2).sum() / ((yte - yte.mean()) ** 2).sum()
        print(f"iter {it}: mse={loss.item():.4f} r2={r2.item():.4f}")
