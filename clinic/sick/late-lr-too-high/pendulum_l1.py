"""Learn the map (angle, velocity) -> (angle, velocity) a moment later, with an absolute-error loss."""

import math

import torch
from torch import nn


def simulate(state, dt=0.05, n=10):
    theta, omega = state.unbind(-1)
    for _ in range(n):
        omega = omega - dt * torch.sin(theta)
        theta = theta + dt * omega
    return torch.stack([theta, omega], -1)


class Dynamics(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.hidden = nn.Linear(2, width)
        self.hidden2 = nn.Linear(width, width)
        self.delta = nn.Linear(width, 2)

    def forward(self, s):
        h = torch.tanh(self.hidden(s))
        h = torch.tanh(self.hidden2(h))
        return s + self.delta(h)


def main():
    model = Dynamics()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    total = 1500

    lo, hi = torch.tensor([-math.pi, -2.0]), torch.tensor([math.pi, 2.0])
    test = lo + (hi - lo) * torch.rand(2000, 2)
    test_next = simulate(test)

    for step in range(total):
        s = lo + (hi - lo) * torch.rand(32, 2)
        loss = (model(s) - simulate(s)).abs().mean()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            with torch.no_grad():
                err = (model(test) - test_next).abs().mean()
            print("step", step + 1, "batch", round(loss.item(), 5), "test error", round(err.item(), 5))


if __name__ == "__main__":
    main()
