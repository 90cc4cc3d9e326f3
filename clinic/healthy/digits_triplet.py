import random

import torch
from sklearn.datasets import load_digits


class Embedder(torch.nn.Module):
    def __init__(self, dim=12):
        super().__init__()
        self.a = torch.nn.Linear(64, 64)
        self.b = torch.nn.Linear(64, dim)

    def forward(self, x):
        return self.b(torch.nn.functional.leaky_relu(self.a(x)))


def triplets(by_class, n):
    rows = []
    for _ in range(n):
        one, other = random.sample(range(10), 2)
        anchor, positive = random.sample(by_class[one], 2)
        rows.append((anchor, positive, random.choice(by_class[other])))
    return torch.tensor(rows).t()


random.seed(9)
x, y = load_digits(return_X_y=True)
x = (torch.tensor(x).float() - 4.9) / 6.0
by_class = [[i for i in range(1300) if y[i] == c] for c in range(10)]
model = Embedder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = torch.nn.TripletMarginLoss(margin=1.0)
running = 0.0
for step in range(1, 401):
    a, p, n = triplets(by_class, 64)
    loss = criterion(model(x[a]), model(x[p]), model(x[n]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    running += loss.item()
    if step % 80 == 0:
        with torch.no_grad():
            z = model(x)
            closest = torch.cdist(z[1300:], z[:1300]).argmin(1)
        print(f"{step} loss {running / 80:.4f} nearest {(torch.tensor(y)[closest] == torch.tensor(y)[1300:]).float().mean():.4f}")
        running = 0.0
