import numpy as np
import torch
import torch.nn as nn

rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, 900)
y = np.sin(2 * x) + 0.5 * x + 0.2 * rng.standard_normal(900)
x, y = torch.tensor(x, dtype=torch.float32)[:, None] / 1.7, torch.tensor(y, dtype=torch.float32)[:, None]
x_train, x_test, y_train, y_test = x[:700], x[700:], y[:700], y[700:]

net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(0.05), nn.Linear(64, 64), nn.Tanh(), nn.Dropout(0.05), nn.Linear(64, 1))
opt = torch.optim.Adam(net.parameters(), lr=0.015, weight_decay=1e-5)
sch = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 60)


def mc_predict(x, samples=20):
    net.train()  # keep sampling masks
    with torch.no_grad():
        draws = torch.stack([net(x) for _ in range(samples)])
    return draws.mean(0), draws.std(0)


for epoch in range(60):
    net.train()
    for i in torch.randperm(700).split(70):
        loss = (net(x_train[i]) - y_train[i]).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    sch.step()
    if epoch % 10 == 9:
        mean, std = mc_predict(x_test)
        print(f"epoch {epoch + 1} loss {loss.item():.4f} test rmse {(mean - y_test).square().mean().sqrt().item():.4f} std {std.mean().item():.4f}")
