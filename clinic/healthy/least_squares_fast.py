"""Gradient descent on least squares with the largest comfortable step."""
import torch

torch.manual_seed(1)
n, d = 300, 12
A = torch.randn(n, d) * torch.linspace(0.4, 1.2, d)
truth = torch.randn(d)
y = A @ truth + 0.05 * torch.randn(n)
L = torch.linalg.eigvalsh(2 * A.T @ A / n).max()
w = torch.nn.Parameter(torch.zeros(d))
gd = torch.optim.SGD([w], lr=1.6 / L.item())
for k in range(1, 201):
    r = (A @ w - y).square().mean()
    gd.zero_grad()
    r.backward()
    gd.step()
    if k % 20 == 0:
        print(k, "residual", r.item(), "distance", (w - truth).norm().item())
