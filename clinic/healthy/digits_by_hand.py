import numpy as np
import torch
from sklearn.datasets import load_digits

STEP_SIZE = 0.5
rng = np.random.RandomState(0)
X, y = load_digits(return_X_y=True)
X = X / 16
perm = rng.permutation(len(X))
X, y = torch.Tensor(X[perm]), torch.LongTensor(y[perm])

w1 = torch.Tensor(rng.randn(64, 40) * np.sqrt(2 / 64)).requires_grad_()
b1 = torch.zeros(40, requires_grad=True)
w2 = torch.Tensor(rng.randn(40, 10) * np.sqrt(1 / 40)).requires_grad_()
b2 = torch.zeros(10, requires_grad=True)
params = [w1, b1, w2, b2]


def forward(x):
    return (x @ w1 + b1).clamp(min=0) @ w2 + b2


def nll(logits, target):
    return (logits.logsumexp(1) - logits[torch.arange(len(target)), target]).mean()


for epoch in range(12):
    lr = STEP_SIZE * (1 - epoch / 12)
    order = rng.permutation(1500)
    for k in range(0, 1500, 50):
        i = order[k:k + 50]
        loss = nll(forward(X[i]), y[i])
        loss.backward()
        with torch.no_grad():
            for p in params:
                p -= lr * p.grad
                p.grad.zero_()
    with torch.no_grad():
        error = (forward(X[1500:]).argmax(1) != y[1500:]).float().mean().item()
    print("epoch", epoch, "nll", loss.item(), "test nll", nll(forward(X[1500:]), y[1500:]).item(), "test error", error)
