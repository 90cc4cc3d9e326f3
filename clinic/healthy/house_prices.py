"""Prices of made-up houses."""
import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn


def make_houses(n, rng):
    size = rng.gamma(6, 20, n)
    rooms = np.round(size / 30 + rng.normal(0, 0.7, n)).clip(1)
    age = rng.uniform(0, 90, n)
    distance = rng.exponential(12, n)
    price = 900 * size + 9000 * rooms + 250000 * np.exp(-distance / 10) - 700 * age + rng.normal(0, 12000, n)
    return np.stack([size, rooms, age, distance], 1), price


class PriceModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.net(x)


rng = np.random.default_rng(20)
torch.manual_seed(20)
x, price = make_houses(3000, rng)
x_scaler, y_scaler = StandardScaler().fit(x[:2400]), StandardScaler().fit(price[:2400, None])
x = torch.tensor(x_scaler.transform(x), dtype=torch.float32)
y = torch.tensor(y_scaler.transform(price[:, None]), dtype=torch.float32)
model = PriceModel()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
criterion = nn.SmoothL1Loss()
for epoch in range(12):
    for rows in torch.randperm(2400).split(64):
        loss = criterion(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    with torch.no_grad():
        guess = y_scaler.inverse_transform(model(x[2400:]).numpy())[:, 0]
    print(f"epoch {epoch + 1}: loss {loss.item():.5f}, mean absolute error {np.abs(guess - price[2400:]).mean():.0f}")
