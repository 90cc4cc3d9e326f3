import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.mean = nn.Linear(48, 2)
        self.log_std = nn.Parameter(torch.full((2,), -0.5))
        self.value = nn.Linear(48, 1)

    def forward(self, s):
        h = self.body(s)
        return Normal(self.mean(h), self.log_std.exp()), self.value(h).squeeze(-1)


def env_step(s, a):
    pos, vel = s[:, :2], s[:, 2:]
    vel = 0.8 * vel + 0.2 * a.clamp(-1, 1)
    pos = (pos + vel).clamp(-2, 2)
    return torch.cat([pos, vel], 1), -pos.norm(dim=1)


net = ActorCritic()
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
state = torch.cat([torch.rand(64, 2) * 2 - 1, torch.zeros(64, 2)], 1)
average = None
for update in range(1, 301):
    logps, values, rewards, ents = [], [], [], []
    for _ in range(8):
        dist, value = net(state)
        action = dist.sample()
        state, reward = env_step(state, action)
        restart = torch.rand(64) < 0.05
        fresh = torch.cat([torch.rand(64, 2) * 2 - 1, torch.zeros(64, 2)], 1)
        logps.append(dist.log_prob(action).sum(1)); values.append(value); rewards.append(reward)
        ents.append(dist.entropy().sum(1))
        state = torch.where(restart[:, None], fresh, state)
    with torch.no_grad():
        ret = net(state)[1]
    targets = []
    for r in reversed(rewards):
        ret = r * 0.1 + 0.9 * ret
        targets.insert(0, ret)
    values, targets = torch.stack(values), torch.stack(targets)
    advantage = (targets - values).detach()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    actor_loss = -(torch.stack(logps) * advantage).mean()
    loss = actor_loss + 0.5 * F.mse_loss(values, targets) - 0.003 * torch.stack(ents).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    optimizer.step()
    mean = torch.stack(rewards).mean().item()
    average = mean if average is None else 0.95 * average + 0.05 * mean
    if update % 50 == 0:
        print(f'{update:4d} reward {average:.4f} loss {loss.item():.4f}')
