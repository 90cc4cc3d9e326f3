import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import nn

N_CRITIC, CLIP, BATCH, Z = 4, 0.1, 64, 4


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x):
        return self.net(x).mean()


def mmd(a, b):
    k = lambda x, y: torch.exp(-torch.cdist(x, y) ** 2 / 0.5).mean()
    return (k(a, a) + k(b, b) - 2 * k(a, b)).item()


data, _ = make_moons(4000, noise=0.05, random_state=0)
data = torch.tensor((data - data.mean(0)) / data.std(0), dtype=torch.float32)
generator = nn.Sequential(nn.Linear(Z, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
critic = Critic()
opt_critic = torch.optim.RMSprop(critic.parameters(), lr=1e-3)
opt_generator = torch.optim.RMSprop(generator.parameters(), lr=5e-4)

for it in range(350):
    for _ in range(N_CRITIC):
        real = data[torch.randint(len(data), (BATCH,))]
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, Z))
        loss = critic(fake) - critic(real)
        opt_critic.zero_grad()
        loss.backward()
        opt_critic.step()
        for p in critic.parameters():
            p.data.clamp_(-CLIP, CLIP)
    loss_g = -critic(generator(torch.randn(BATCH, Z)))
    opt_generator.zero_grad()
    loss_g.backward()
    opt_generator.step()
    if it % 50 == 49:
        with torch.no_grad():
            print("iteration", it + 1, "wasserstein", round(-loss.item(), 4), "mmd", round(mmd(generator(torch.randn(1000, Z)), data[:1000]), 5))
