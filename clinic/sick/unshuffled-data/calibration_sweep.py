# Calibrate a sensor: the temperature was swept slowly from cold to hot while logging.
import torch

torch.manual_seed(12)
n = 3000
temperature = torch.linspace(-1.7, 1.7, n)
pressure = torch.randn(n)
reading = torch.sin(3 * temperature) + 0.5 * temperature**2 + 0.3 * pressure * temperature + 0.05 * torch.randn(n)
log = torch.stack([temperature, pressure], dim=1)
reading = (reading - reading.mean()) / reading.std()

held_out = torch.zeros(n, dtype=torch.bool)
held_out[::5] = True
x, y = log[~held_out], reading[~held_out]
x_val, y_val = log[held_out], reading[held_out]

W = [torch.randn(2, 40) / 2**0.5, torch.randn(40, 40) / 40**0.5, torch.randn(40, 1) / 40**0.5]
b = [torch.zeros(40), torch.zeros(40), torch.zeros(1)]
for p in W + b:
    p.requires_grad_()


def net(v):
    h = torch.tanh(v @ W[0] + b[0])
    h = torch.tanh(h @ W[1] + b[1])
    return (h @ W[2] + b[2])[:, 0]


optimizer = torch.optim.SGD(W + b, lr=0.02, momentum=0.9)
for epoch in range(30):
    for xb, yb in zip(x.split(40), y.split(40)):
        loss = (net(xb) - yb).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        rmse = (net(x_val) - y_val).square().mean().sqrt().item()
    if epoch % 5 == 4:
        print(f"pass {epoch + 1}: last loss {loss.item():.5f} rmse {rmse:.4f}")
