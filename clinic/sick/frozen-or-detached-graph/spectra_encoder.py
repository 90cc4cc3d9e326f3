import torch
import torch.nn as nn


class Encoder(nn.Module):
    def __init__(self, out_dim=6):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(1, 8, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 16, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(4),
        )
        self.proj = nn.Linear(64, out_dim)

    def forward(self, x):
        return self.proj(self.conv(x).flatten(1))


class Agent(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.encoder = Encoder()
        self.policy = nn.Sequential(nn.ReLU(), nn.Linear(6, n_classes))

    def encode(self, obs):
        with torch.no_grad():
            return self.encoder(obs)

    def forward(self, obs):
        return self.policy(self.encode(obs))


def spectra(n, n_classes=5, length=60):
    """Two peaks each; their distance gives the class."""
    label = torch.randint(0, n_classes, (n,))
    grid = torch.arange(length).float()
    left = 8 + 22 * torch.rand(n, 1)
    gap = 4 + 4 * label[:, None].float()
    out = torch.exp(-((grid - left) ** 2) / 3) + torch.exp(-((grid - left - gap) ** 2) / 3)
    out = out + 0.05 * torch.randn(n, length)
    return ((out - 0.1) / 0.25).unsqueeze(1), label


x, y = spectra(1500)
x_val, y_val = spectra(500)
agent = Agent(5)
opt = torch.optim.Adam(agent.parameters(), lr=4e-3)
ce = nn.CrossEntropyLoss()
for epoch in range(30):
    perm = torch.randperm(len(x))
    total = 0.0
    for idx in perm.split(60):
        loss = ce(agent(x[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    if epoch % 5 == 4:
        hits = (agent(x_val).argmax(1) == y_val).float().mean()
        print(f"epoch {epoch + 1} loss {total / 25:.4f} val accuracy {hits.item():.3f}")
