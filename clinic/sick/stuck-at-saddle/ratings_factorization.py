"""Matrix factorization of a table of ratings, with biases."""

import torch
from torch import nn


class Factorization(nn.Module):
    def __init__(self, users, items, rank=6):
        super().__init__()
        self.user_factors = nn.Parameter(torch.zeros(users, rank))
        self.item_factors = nn.Parameter(torch.zeros(items, rank))
        self.user_bias = nn.Parameter(torch.zeros(users))
        self.item_bias = nn.Parameter(torch.zeros(items))

    def forward(self, u, i):
        interaction = (self.user_factors[u] * self.item_factors[i]).sum(-1)
        return interaction + self.user_bias[u] + self.item_bias[i]


def make_ratings(users=120, items=80, rank=3, n=7000):
    p, q = torch.randn(users, rank), torch.randn(items, rank)
    u, i = torch.randint(0, users, (n,)), torch.randint(0, items, (n,))
    rating = (p[u] * q[i]).sum(-1) / rank**0.5 + 0.3 * torch.randn(users)[u] + 0.1 * torch.randn(n)
    return u, i, rating


def main():
    torch.manual_seed(30)
    u, i, rating = make_ratings()
    cut = 6000
    model = Factorization(120, 80)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for epoch in range(25):
        for idx in torch.randperm(cut).split(150):
            loss = nn.functional.mse_loss(model(u[idx], i[idx]), rating[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            rmse = nn.functional.mse_loss(model(u[cut:], i[cut:]), rating[cut:]).sqrt().item()
        print(f"epoch {epoch + 1:2d}: train {loss.item():.4f} test rmse {rmse:.4f}")


if __name__ == "__main__":
    main()
