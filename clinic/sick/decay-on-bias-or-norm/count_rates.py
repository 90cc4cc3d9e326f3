"""Poisson regression: how many calls arrive in an hour, from its features."""

import torch
from torch import nn


class RateModel(nn.Module):
    def __init__(self, n_in):
        super().__init__()
        self.hidden = nn.Linear(n_in, 24)
        self.norm = nn.LayerNorm(24)
        self.log_rate = nn.Linear(24, 1)

    def forward(self, x):
        return self.log_rate(torch.relu(self.norm(self.hidden(x)))).squeeze(-1)


def hours(n, weights):
    x = torch.randn(n, 6)
    rate = torch.exp(4.0 + 0.3 * torch.tanh(x @ weights))
    return x, torch.poisson(rate), rate


def main():
    torch.manual_seed(0)
    weights = torch.randn(6)
    x, y, _ = hours(2000, weights)
    x_val, _, rate_val = hours(1000, weights)
    model = RateModel(6)
    nn.init.constant_(model.log_rate.bias, y.mean().log().item())
    criterion = nn.PoissonNLLLoss(log_input=True, full=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.5)
    for epoch in range(12):
        for idx in torch.randperm(len(x)).split(64):
            loss = criterion(model(x[idx]), y[idx])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        with torch.no_grad():
            error = (model(x_val).exp() / rate_val - 1).abs().mean().item()
        print(f"epoch {epoch:2d} nll {loss.item():.4f} rate error {error:.4f}")


if __name__ == "__main__":
    main()
