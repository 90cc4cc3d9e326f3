"""Classify noisy chirps (rising, falling, flat) with a GRU; learning rate is warmed up."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

LENGTH = 30
WARMUP_STEPS = 10
BASE_LR = 4e-3


def batch(n, generator):
    kind = torch.randint(0, 3, (n,), generator=generator)
    t = torch.linspace(0, 1, LENGTH)
    rate = (kind - 1).float()[:, None] * 3.0
    start = 4.0 + 2.0 * torch.rand(n, 1, generator=generator)
    phase = 6.28 * torch.rand(n, 1, generator=generator)
    wave = torch.sin(phase + 6.28 * (start * t + 0.5 * rate * t * t))
    return (wave + 0.2 * torch.randn(n, LENGTH, generator=generator)).unsqueeze(-1), kind


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        _, h = self.gru(x)
        return self.head(h[-1])


def main():
    g = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    net = Classifier()
    optimizer = torch.optim.Adam(net.parameters(), lr=BASE_LR)
    scheduler = LambdaLR(optimizer, lambda step: (step + 1) / WARMUP_STEPS)
    x_test, y_test = batch(500, g)

    for step in range(500):
        x, y = batch(32, g)
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 50 == 49:
            with torch.no_grad():
                out = net(x_test)
            test_loss = nn.functional.cross_entropy(out, y_test).item()
            print(f"step {step + 1} train {loss.item():.3f} test {test_loss:.3f} lr {optimizer.param_groups[0]['lr']:.4f}")


if __name__ == "__main__":
    main()
