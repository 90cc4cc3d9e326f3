import math

import numpy as np
import torch
from torch import nn

torch.manual_seed(7)
t = np.arange(0, 120, 0.1)
series = np.sin(t) + 0.5 * np.sin(2.3 * t)
W = 20
xs = np.stack([series[i : i + W] for i in range(len(series) - W)])[:, :, None]
ys = series[W:][:, None]
xs, ys = torch.tensor(xs, dtype=torch.float32), torch.tensor(ys, dtype=torch.float32)
n = 1000


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 24, batch_first=True)
        self.head = nn.Linear(24, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


model = Forecaster()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
loss_fn = nn.MSELoss()
for epoch in range(12):
    model.train()
    for idx in torch.randperm(n).split(32):
        optimizer.zero_grad()
        loss = loss_fn(model(xs[idx]), ys[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print("epoch", epoch, "valid loss", loss_fn(model(xs[n:]), ys[n:]).item())
