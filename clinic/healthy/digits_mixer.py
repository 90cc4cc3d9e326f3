"""MLP-Mixer on 8x8 digits: 16 patches of 2x2."""
import math
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


class MixerBlock(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channel = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))

    def forward(self, x):
        x = x + self.token(self.ln1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.ln2(x))


class Mixer(nn.Module):
    def __init__(self, dim=24, depth=2):
        super().__init__()
        self.embed = nn.Conv2d(1, dim, 2, stride=2)
        self.blocks = nn.Sequential(*[MixerBlock(16, dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def get_lr(step, base=6e-3, warm=30, total=230):
    if step < warm:
        return base * (step + 1) / warm
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


torch.manual_seed(42)
ds = load_digits()
x = torch.tensor(ds.images, dtype=torch.float32).unsqueeze(1)
x = (x - x.mean()) / x.std()
y = torch.tensor(ds.target)
p = torch.randperm(len(y))
x, y = x[p], y[p]
model = Mixer()
optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.02)
lrs = torch.optim.lr_scheduler.LambdaLR(optimizer, get_lr)
step = 0
while step < 230:
    for i in torch.randperm(1500).split(64):
        loss = nn.functional.cross_entropy(model(x[i]), y[i])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lrs.step()
        step += 1
        if step % 46 == 0:
            with torch.no_grad():
                out = model(x[1500:])
            print(f"step {step} train loss {loss.item():.3f} eval loss {nn.functional.cross_entropy(out, y[1500:]).item():.4f} acc {(out.argmax(1) == y[1500:]).float().mean().item():.3f}")
        if step == 230:
            break
