"""REINFORCE with a learned baseline on a cart and pole simulated here (Barto, Sutton & Anderson 1983)."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02


def move(state: np.ndarray, push_right: np.ndarray) -> np.ndarray:
    """One time step of a row of carts; columns: position, velocity, angle, angular velocity."""
    _, velocity, angle, spin = state.T
    sin, cos = np.sin(angle), np.cos(angle)
    push = np.where(push_right, FORCE, -FORCE) + POLE * HALF_LENGTH * spin**2 * sin
    push /= CART + POLE
    twist = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / (CART + POLE)))
    pull = push - POLE * HALF_LENGTH * twist * cos / (CART + POLE)
    return state + DT * np.stack([velocity, pull, spin, twist], axis=1)


@torch.no_grad()
def play(policy: nn.Module, rng: np.random.Generator, episodes: int, horizon: int):
    """Play all episodes at once: states, actions, and which poles stood, each (time, episodes)."""
    state = rng.uniform(-0.05, 0.05, (episodes, 4))
    standing = np.ones(episodes, dtype=bool)
    states, actions, stood = [], [], []
    for _ in range(horizon):
        p_right = torch.sigmoid(policy(torch.from_numpy(state).float())).squeeze(1).numpy()
        push_right = rng.random(episodes) < p_right
        states.append(state)
        actions.append(push_right)
        stood.append(standing.copy())
        state = move(state, push_right)
        standing &= (np.abs(state[:, 0]) < 2.4) & (np.abs(state[:, 2]) < 0.21)
        if not standing.any():
            break
    return (torch.from_numpy(np.stack(rows)).float() for rows in (states, actions, stood))


def returns_to_go(rewards: torch.Tensor, discount: float) -> torch.Tensor:
    out, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + discount * following
        out[t] = following
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32, help="episodes per update")
    parser.add_argument("--horizon", type=int, default=200)
    parser.add_argument("--discount", type=float, default=0.98)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    value = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=args.lr)

    for iteration in range(1, args.iterations + 1):
        states, actions, stood = play(policy, rng, args.batch_size, args.horizon)
        seen = stood > 0
        returns = (1 - args.discount) * returns_to_go(stood, args.discount)[seen]
        baseline = value(states[seen]).squeeze(1)
        advantage = returns - baseline.detach()
        advantage = advantage / (advantage.std() + 1e-6)
        surprise = binary_cross_entropy_with_logits(policy(states[seen]).squeeze(1), actions[seen], reduction="none")
        loss = (surprise * advantage).mean() + mse_loss(baseline, returns)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if iteration % 5 == 0:
            length = stood.sum(0).mean().item()
            print(f"iteration {iteration}: the pole stood for {length:.0f} of {args.horizon} steps")

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save({"policy": policy.state_dict(), "value": value.state_dict()}, args.out / "agent.pt")


if __name__ == "__main__":
    main()
