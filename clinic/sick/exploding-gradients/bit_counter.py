"""Count the ones of a bit string with an identity-initialized ReLU network."""

import torch
from torch import nn

T = 60
HIDDEN = 32


class IRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(1, HIDDEN, nonlinearity="relu", batch_first=True)
        nn.init.eye_(self.rnn.weight_hh_l0)
        nn.init.normal_(self.rnn.weight_ih_l0, std=0.05)
        nn.init.zeros_(self.rnn.bias_hh_l0)
        nn.init.zeros_(self.rnn.bias_ih_l0)
        self.readout = nn.Linear(HIDDEN, 1)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.readout(h[0]).squeeze(-1)


def make_batch(n):
    density = torch.rand(n, 1)
    bits = (torch.rand(n, T) < density).float()
    return bits.unsqueeze(-1), bits.sum(1) / 10


torch.manual_seed(3)
net = IRNN()
optimizer = torch.optim.SGD(net.parameters(), lr=0.003, momentum=0.9)
huber = nn.SmoothL1Loss()

recent = []
for step in range(1, 401):
    x, y = make_batch(64)
    loss = huber(net(x), y)
    net.zero_grad()
    loss.backward()
    optimizer.step()
    recent.append(loss.item())
    if step % 50 == 0:
        print(f"step {step} mean loss {sum(recent[-50:]) / 50:.5f}")
