from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


@dataclass
class Config:
    noise: float = 0.35
    lr: float = 4e-3
    epochs: int = 14
    batch: int = 64
    seed: int = 5


cfg = Config()
np.random.seed(cfg.seed)
torch.manual_seed(cfg.seed)

images = load_digits().images[:, None] / 16.0
perm = np.random.permutation(len(images))
train = torch.as_tensor(images[perm[:1450]], dtype=torch.float32)
test = torch.as_tensor(images[perm[1450:]], dtype=torch.float32)

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ELU(),
    nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ELU(),
    nn.Conv2d(16, 16, 3, padding=1), nn.ELU(),
    nn.Upsample(scale_factor=2),
    nn.Conv2d(16, 16, 3, padding=1), nn.ELU(),
    nn.Conv2d(16, 1, 3, padding=1),
)
opt = torch.optim.NAdam(net.parameters(), lr=cfg.lr)
steps = cfg.epochs * (len(train) // cfg.batch)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
test_noisy = test + cfg.noise * torch.randn_like(test)

for epoch in range(cfg.epochs):
    net.train()
    order = torch.randperm(len(train))
    for k in range(len(train) // cfg.batch):
        clean = train[order[k * cfg.batch:(k + 1) * cfg.batch]]
        noisy = clean + cfg.noise * torch.randn_like(clean)
        loss = ((net(noisy) - clean) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    net.eval()
    with torch.no_grad():
        err = ((net(test_noisy) - test) ** 2).mean()
    print(f"epoch {epoch:2d} loss {loss.item():.5f} test psnr {-10 * torch.log10(err).item():.3f}")
