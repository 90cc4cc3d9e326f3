import torch
from torch.distributions import Categorical

torch.manual_seed(4)
SIZE, HORIZON, EPISODES = 7, 16, 32


def features(pos, goal):
    both = torch.zeros(len(pos), 2 * SIZE)
    both[torch.arange(len(pos)), pos] = 1.
    both[torch.arange(len(pos)), SIZE + goal] = 1.
    return both


policy = torch.nn.Sequential(torch.nn.Linear(2 * SIZE, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
baseline = 0.
history = []
for iteration in range(250):
    pos = torch.randint(0, SIZE, (EPISODES,))
    goal = torch.randint(0, SIZE, (EPISODES,))
    log_probs, rewards = [], []
    for t in range(HORIZON):
        dist = Categorical(logits=policy(features(pos, goal)))
        action = dist.sample()
        log_probs.append(dist.log_prob(action))
        pos = (pos + action - 1).clamp(0, SIZE - 1)
        rewards.append((pos == goal).float() - 0.2)
    rewards = torch.stack(rewards)
    returns = rewards.flip(0).cumsum(0).flip(0) / HORIZON
    baseline = returns.mean(1, keepdim=True)
    advantage = returns - baseline
    loss = -(torch.stack(log_probs) * advantage / (advantage.std() + 1e-6)).mean() - 0.01 * dist.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(rewards.sum(0).mean().item())
    if iteration % 25 == 24:
        print('iteration', iteration + 1, 'mean return', sum(history[-25:]) / 25)
