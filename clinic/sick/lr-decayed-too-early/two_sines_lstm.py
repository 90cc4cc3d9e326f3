"""Next-value prediction of a sum of two sines with an LSTM."""

import math

import torch
from torch import nn


class Forecaster(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, x):
        h, _ = self.lstm(x)
        return self.linear(h)


def sample(n, length=41):
    t = torch.arange(length).float()
    phase = 2 * math.pi * torch.rand(n, 2, 1)
    period = torch.tensor([[[9.0], [23.0]]])
    amplitude = 0.3 + torch.rand(n, 2, 1)
    series = (amplitude * torch.sin(2 * math.pi * t / period + phase)).sum(1)
    return series[:, :-1, None], series[:, 1:, None]


torch.manual_seed(0)
model = Forecaster()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=0)
criterion = nn.MSELoss()
x_val, y_val = sample(200)

for iteration in range(300):
    x, y = sample(16)
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss.item())
    if iteration % 30 == 29:
        with torch.no_grad():
            val = criterion(model(x_val), y_val)
        print(f"iteration {iteration + 1}: loss {loss.item():.5f} val {val.item():.5f} lr {scheduler.get_last_lr()[0]:g}")
