import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(21)


def real(n):
    angle = 2 * torch.pi * torch.rand(n)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


G = nn.Sequential(nn.Linear(8, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, 2))
D = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1))
opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.99))
opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.99))
ones, zeros = torch.ones(96, 1), torch.zeros(96, 1)

for it in range(1, 1201):
    fake = G(torch.randn(96, 8))
    d_loss = F.binary_cross_entropy_with_logits(D(real(96)), ones) + F.binary_cross_entropy_with_logits(D(fake.detach()), zeros)
    opt_d.zero_grad()
    d_loss.backward()
    opt_d.step()

    g_loss = F.binary_cross_entropy_with_logits(D(fake), ones)
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
    if it % 200 == 0:
        with torch.no_grad():
            sample = G(torch.randn(2000, 8))
            off = (sample.norm(dim=1) - 1).abs().mean()
        print(f"{it}: D {d_loss.item():.3f} G {g_loss.item():.3f} distance {off.item():.4f}")
