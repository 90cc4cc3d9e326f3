import math

import torch
import torch.nn as nn

# fit one period of a noisy sine with a small network

n = 200
x = torch.linspace(-1, 1, n).unsqueeze(1)
y = torch.sin(math.pi * x) + 0.05 * torch.randn(n, 1)

model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
loss_fn = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.00001)

for it in range(1500):
    pred = model(x)
    loss = loss_fn(pred, y)

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    if it % 100 == 99:
        print(it + 1, "loss:", loss.item())
