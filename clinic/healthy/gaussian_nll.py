import torch
from torch import nn

torch.manual_seed(17)
x = torch.rand(2000, 1) * 4 - 2
sigma = 0.05 + 0.15 * (x + 2) / 4
y = torch.sin(2 * x) * 0.5 + sigma * torch.randn_like(x)
train, test = slice(0, 1500), slice(1500, 2000)


class MeanVariance(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh())
        self.mu, self.var = nn.Linear(40, 1), nn.Linear(40, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.mu(h), nn.functional.softplus(self.var(h)) + 1e-4


model, nll = MeanVariance(), nn.GaussianNLLLoss()
opt = torch.optim.Adam(model.parameters(), lr=4e-3)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 40)
for epoch in range(40):
    for i in torch.randperm(1500).split(64):
        mu, var = model(x[i])
        loss = nll(mu, y[i], var)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        opt.step()
    sched.step()
    if epoch % 8 == 7:
        with torch.no_grad():
            mu, var = model(x[test])
            print(f'{epoch + 1} train nll {loss.item():.4f} test nll {nll(mu, y[test], var).item():.4f}')
