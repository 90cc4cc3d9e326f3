"""Contextual bandit by policy gradient: which of 6 offers suits a visitor?"""

import argparse

import torch
import torch.nn as nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self, n_context, n_arms):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_context, 32), nn.Tanh(), nn.Linear(32, n_arms))

    def forward(self, context):
        return Categorical(logits=self.layers(context))


class Bandit:
    def __init__(self, n_context=8, n_arms=6, noise=3.0):
        self.taste = torch.randn(n_context, n_arms, generator=torch.Generator().manual_seed(1)) / n_context**0.5
        self.n_context, self.noise = n_context, noise

    def contexts(self, n):
        return torch.randn(n, self.n_context)

    def value(self, context, arm):
        return (context @ self.taste).gather(1, arm.unsqueeze(1)).squeeze(1)

    def pull(self, context, arm):
        return self.value(context, arm) + self.noise * torch.randn(len(arm))


def regret(policy, bandit, n=1000):
    with torch.no_grad():
        context = bandit.contexts(n)
        best = (context @ bandit.taste).max(1).values
        arm = policy(context).probs.argmax(1)
        return (best - bandit.value(context, arm)).mean().item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--episodes-per-update", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    bandit, policy = Bandit(), Policy(8, 6)
    optimizer = torch.optim.Adam(policy.parameters(), lr=args.lr)
    for update in range(1, args.updates + 1):
        context = bandit.contexts(args.episodes_per_update)
        dist = policy(context)
        arm = dist.sample()
        reward = bandit.pull(context, arm)
        loss = -(dist.log_prob(arm) * reward).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 200 == 0:
            print(f"update {update}: mean regret {regret(policy, bandit):.4f}")


if __name__ == "__main__":
    main()
