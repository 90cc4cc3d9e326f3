import torch
import torch.nn.functional as F
from torch import nn

# many cheap, noisy measurements of a smooth quantity
torch.manual_seed(0)
N = 60000
true = lambda x: torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
x = torch.rand(N, 3) * 2 - 1
x = x / x.std(0)
y = true(x) + 3.0 * torch.randn(N)
x_clean = (torch.rand(2000, 3) * 2 - 1) / 0.577
y_clean = true(x_clean)

model = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
batch_size = 2

model.train()
for step in range(1, 1501):
    idx = torch.randint(0, N, (batch_size,))
    loss = F.mse_loss(model(x[idx]).squeeze(1), y[idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 250 == 0:
        with torch.no_grad():
            rmse = F.mse_loss(model(x_clean).squeeze(1), y_clean).sqrt()
        print(f"step {step} loss {loss.item():.3f} rmse to truth {rmse.item():.4f}")
