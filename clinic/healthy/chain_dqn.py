"""DQN on a small cliff: replay memory, target network, epsilon-greedy."""
import random
from collections import deque

import torch
from torch import nn
import torch.nn.functional as F

WIDTH, HEIGHT = 5, 4


class Cliff:
    def reset(self):
        self.x, self.y, self.t = 0, 0, 0
        return self.obs()

    def obs(self):
        v = torch.zeros(WIDTH + HEIGHT)
        v[self.x] = 1
        v[WIDTH + self.y] = 1
        return v

    def step(self, a):
        dx, dy = [(1, 0), (-1, 0), (0, 1), (0, -1)][a]
        self.x = min(max(self.x + dx, 0), WIDTH - 1)
        self.y = min(max(self.y + dy, 0), HEIGHT - 1)
        self.t += 1
        if self.y == 0 and 0 < self.x < WIDTH - 1:
            return self.obs(), -1.0, True
        if self.y == 0 and self.x == WIDTH - 1:
            return self.obs(), 1.0, True
        return self.obs(), -0.02, self.t >= 40


def make_net():
    return nn.Sequential(nn.Linear(WIDTH + HEIGHT, 64), nn.ReLU(), nn.Linear(64, 4))


random.seed(0)
torch.manual_seed(0)
q, target = make_net(), make_net()
target.load_state_dict(q.state_dict())
optimizer = torch.optim.Adam(q.parameters(), lr=2e-3)
memory = deque(maxlen=3000)
env, state, returns, ret = Cliff(), None, [], 0.0
state = env.reset()
for step in range(3000):
    eps = max(0.05, 1 - step / 1200)
    if random.random() < eps:
        action = random.randrange(4)
    else:
        with torch.no_grad():
            action = int(q(state).argmax())
    nxt, reward, done = env.step(action)
    memory.append((state, action, reward, nxt, float(done and env.t < 40)))
    state, ret = nxt, ret + reward
    if done:
        returns.append((step, ret))
        state, ret = env.reset(), 0.0
    if step >= 200 and step % 2 == 0:
        s, a, r, s2, d = zip(*random.sample(memory, 48))
        with torch.no_grad():
            best = target(torch.stack(s2)).max(1).values
            goal = torch.tensor(r) + 0.95 * best * (1 - torch.tensor(d))
        value = q(torch.stack(s)).gather(1, torch.tensor(a)[:, None]).squeeze(1)
        loss = F.smooth_l1_loss(value, goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if step % 100 == 0:
        target.load_state_dict(q.state_dict())
    if step % 500 == 499:
        recent = [r for s, r in returns if s > step - 500]
        print(f"step {step + 1}: episodes {len(returns)}, eps {eps:.2f}, last 500 {sum(recent) / len(recent):.4f}")
