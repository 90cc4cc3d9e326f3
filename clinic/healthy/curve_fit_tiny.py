import torch

torch.manual_seed(2)
t = torch.linspace(0, 5, 200)
y = 2.0 * torch.exp(-0.7 * t) + 0.5 + 0.05 * torch.randn(200)


class Decay(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.amplitude = torch.nn.Parameter(torch.tensor(1.0))
        self.log_rate = torch.nn.Parameter(torch.tensor(0.0))
        self.offset = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, t):
        return self.amplitude * torch.exp(-self.log_rate.exp() * t) + self.offset


curve = Decay()
optimizer = torch.optim.Adam(curve.parameters(), lr=0.05)
for step in range(400):
    loss = ((curve(t) - y) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"amplitude {curve.amplitude.item():.3f} rate {curve.log_rate.exp().item():.3f} offset {curve.offset.item():.3f}")
print(f"final loss {loss.item():.6f}")
