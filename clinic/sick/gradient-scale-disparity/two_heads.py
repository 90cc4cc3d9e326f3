# One network, two targets: room temperature (°C) and air pressure (Pa), from ten standardized readings.
import torch
import torch.nn as nn


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(10, 32), nn.Tanh())
        self.temperature = nn.Linear(32, 1)
        self.pressure = nn.Linear(32, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.temperature(h).squeeze(1), self.pressure(h).squeeze(1)


torch.manual_seed(9)
N = 2000
x = torch.randn(N, 10)
a, b = torch.randn(10) / 3, torch.randn(10) / 3
temperature = 2.0 * torch.sin(x @ a) + 0.1 * torch.randn(N)
pressure = 400.0 * torch.tanh(x @ b) + 10.0 * torch.randn(N)
train, test = torch.arange(1600), torch.arange(1600, N)

model = TwoHeads()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
criterion = nn.MSELoss()


def r2(prediction, target):
    return 1 - ((prediction - target) ** 2).mean() / target.var()


for epoch in range(40):
    for idx in torch.randperm(1600).split(40):
        t, p = model(x[train[idx]])
        loss = criterion(t, temperature[idx]) + criterion(p, pressure[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 4 == 3:
        with torch.no_grad():
            t, p = model(x[test])
            rt, rp = r2(t, temperature[test]).item(), r2(p, pressure[test]).item()
        print(f"epoch {epoch + 1} R2 temperature {rt:.3f} pressure {rp:.3f} mean {(rt + rp) / 2:.3f}")
