import math

import numpy as np
import torch
from sklearn.datasets import make_swiss_roll

# predict the position along the roll from the three coordinates

DEPTH = 9
WIDTH = 32

rng = np.random.RandomState(0)
points, t = make_swiss_roll(1500, noise=0.1, random_state=0)
points = (points - points.mean(0)) / points.std(0)
t = (t - t.mean()) / t.std()
X = torch.from_numpy(points.astype("float32"))
T = torch.from_numpy(t.astype("float32")).view(-1, 1)
train, val = slice(0, 1200), slice(1200, None)

torch.manual_seed(0)
weights, biases = [], []
sizes = [3] + [WIDTH] * DEPTH + [1]
for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
    bound = 1 / math.sqrt(3 * fan_in)
    weights.append(torch.empty(fan_in, fan_out).uniform_(-bound, bound).requires_grad_())
    biases.append(torch.zeros(fan_out, requires_grad=True))


def forward(x):
    for w, b in zip(weights[:-1], biases[:-1]):
        x = torch.tanh(x @ w + b)
    return x @ weights[-1] + biases[-1]


optimizer = torch.optim.SGD(weights + biases, lr=0.05, momentum=0.9)
for epoch in range(40):
    order = rng.permutation(1200)
    for i in range(0, 1200, 60):
        idx = order[i : i + 60]
        loss = torch.mean((forward(X[idx]) - T[idx]) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            v = torch.mean((forward(X[val]) - T[val]) ** 2).item()
        print(f"epoch {epoch + 1} train {loss.item():.4f} val {v:.4f}")
