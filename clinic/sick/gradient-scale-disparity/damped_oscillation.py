"""Fit a damped oscillation to a record of a seismometer: amplitude (counts), decay (1/s), frequency (Hz), offset."""

import torch

torch.manual_seed(0)
t = torch.linspace(0, 8, 400)
signal = 950.0 * torch.exp(-0.21 * t) * torch.cos(6.2832 * 0.512 * t) + 130.0
record = signal + 5.0 * torch.randn(400)

amplitude = torch.nn.Parameter(torch.tensor(600.0))
decay = torch.nn.Parameter(torch.tensor(0.1))
frequency = torch.nn.Parameter(torch.tensor(0.5))
offset = torch.nn.Parameter(torch.tensor(0.0))


def model(t):
    return amplitude * torch.exp(-decay * t) * torch.cos(6.2832 * frequency * t) + offset


optimizer = torch.optim.SGD([amplitude, decay, frequency, offset], lr=2e-8, momentum=0.9)
n_iter = 2500
for i in range(n_iter):
    batch = torch.randint(400, (100,))
    loss = ((model(t[batch]) - record[batch]) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (i + 1) % 250 == 0:
        with torch.no_grad():
            rms = (model(t) - record).pow(2).mean().sqrt()
        print(
            f"{i + 1:5d}: A={amplitude.item():.1f} k={decay.item():.4f} f={frequency.item():.4f} "
            f"c={offset.item():.2f}  rms {rms.item():.3f}"
        )
