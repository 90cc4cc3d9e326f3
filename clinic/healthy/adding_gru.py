"""The adding problem: sum the two marked numbers of a sequence."""
import torch
from torch import nn

torch.manual_seed(11)
LENGTH, HIDDEN, BATCH = 12, 32, 64


def sample(n):
    numbers = torch.rand(n, LENGTH)
    marks = torch.zeros(n, LENGTH)
    first = torch.randint(0, LENGTH // 2, (n, 1))
    second = torch.randint(LENGTH // 2, LENGTH, (n, 1))
    marks.scatter_(1, first, 1.0).scatter_(1, second, 1.0)
    return torch.stack([numbers - 0.5, marks], dim=2), (numbers * marks).sum(1) - 1


class Adder(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x):
        states, _ = self.gru(x)
        return self.out(states[:, -1]).squeeze(1)


model = Adder()
opt = torch.optim.Adam(model.parameters(), lr=0.02)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 800, eta_min=1e-4)
test_x, test_y = sample(1000)
for step in range(800):
    x, y = sample(BATCH)
    loss = nn.functional.mse_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    sched.step()
    if step % 100 == 99:
        with torch.no_grad():
            print(f"step {step + 1} train {loss.item():.4f} test mse {nn.functional.mse_loss(model(test_x), test_y).item():.5f}")
