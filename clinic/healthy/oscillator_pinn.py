import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
DELTA, OMEGA = 0.5, 3.0


class Solution(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(1, 32), torch.nn.Linear(32, 32), torch.nn.Linear(32, 1)])

    def forward(self, t):
        h = t - 1
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h))
        # x(0) = 1 and x'(0) = 0 by construction
        return 1 + t ** 2 * self.layers[-1](h)


def exact(t):
    w = (OMEGA ** 2 - DELTA ** 2) ** 0.5
    return torch.exp(-DELTA * t) * (torch.cos(w * t) + DELTA / w * torch.sin(w * t))


u = Solution()
optimizer = torch.optim.Adam(u.parameters(), lr=8e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1100)
grid = torch.linspace(0, 2, 101)[:, None]
for i in range(1100):
    t = (2 * torch.rand(48, 1)).requires_grad_()
    x = u(t)
    v, = torch.autograd.grad(x.sum(), t, create_graph=True)
    a, = torch.autograd.grad(v.sum(), t, create_graph=True)
    residual = a + 2 * DELTA * v + OMEGA ** 2 * x
    loss = (residual ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if i % 100 == 99:
        with torch.no_grad():
            print(f'{i + 1} residual {loss.item():.5f} error {(u(grid) - exact(grid)).abs().max().item():.5f}')
