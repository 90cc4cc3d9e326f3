"""Q-learning from a fixed set of transitions of a 1-d corridor: walk to the goal at the right end."""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

N_CELLS, GAMMA = 12, 0.9


class QNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(N_CELLS, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, state):
        return self.net(F.one_hot(state, N_CELLS).float())


def step(state, action):
    nxt = (state + 2 * action - 1).clamp(0, N_CELLS - 1)
    done = nxt == N_CELLS - 1
    return nxt, done.float(), done.float()


class ReplayBuffer:
    def __init__(self, size):
        self.state = torch.randint(0, N_CELLS - 1, (size,))
        self.action = torch.randint(0, 2, (size,))
        self.next_state, self.reward, self.done = step(self.state, self.action)

    def sample(self, n):
        i = torch.randint(0, len(self.state), (n,))
        return self.state[i], self.action[i], self.reward[i], self.next_state[i], self.done[i]


class Agent:
    def __init__(self):
        self.q = QNetwork()
        self.target = copy.deepcopy(self.q)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=2e-3)

    def update(self, batch):
        state, action, reward, next_state, done = batch
        with torch.no_grad():
            best = self.target(next_state).max(dim=1).values
            td_target = reward + GAMMA * (1 - done) * best
        q_value = self.q(state).gather(1, action.unsqueeze(1))
        loss = F.smooth_l1_loss(q_value, td_target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for p, q in zip(self.target.parameters(), self.q.parameters()):
            p.data.lerp_(q.data, 0.05)
        return loss.item()


def true_values():
    # optimal: always right
    state = torch.arange(N_CELLS - 1)
    return GAMMA ** (N_CELLS - 2 - state).float()


def main():
    torch.manual_seed(10)
    buffer, agent = ReplayBuffer(2000), Agent()
    for it in range(1, 1501):
        loss = agent.update(buffer.sample(64))
        if it % 250 == 0:
            with torch.no_grad():
                value = agent.q(torch.arange(N_CELLS - 1)).max(1).values
            error = (value - true_values()).abs().mean().item()
            print(f"iteration {it}: td loss {loss:.5f}, value error {error:.4f}")


if __name__ == "__main__":
    main()
