"""Character LSTM, truncated backpropagation over contiguous text."""
import math
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(3)
text = " ".join(topics[k] for k in sorted(topics))[:36000].lower()
chars = sorted(set(text))
ids = torch.tensor([chars.index(c) for c in text])
BPTT, STREAMS = 32, 24
held = ids[-4800:].view(STREAMS, -1).t()
train = ids[: (len(ids) - 4800) // STREAMS * STREAMS].view(STREAMS, -1).t()


class Model(nn.Module):
    def __init__(self, vocab, width=72):
        super().__init__()
        self.emb = nn.Embedding(vocab, 24)
        self.lstm = nn.LSTM(24, width)
        self.out = nn.Linear(width, vocab)

    def forward(self, x, state=None):
        y, state = self.lstm(self.emb(x), state)
        return self.out(y), state


net = Model(len(chars))
optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.75)
for epoch in range(7):
    net.train()
    state, losses = None, []
    for i in range(0, len(train) - 1 - BPTT, BPTT):
        x, y = train[i : i + BPTT], train[i + 1 : i + BPTT + 1]
        if state is not None:
            state = tuple(s.detach() for s in state)
        logits, state = net(x, state)
        loss = F.cross_entropy(logits.reshape(-1, len(chars)), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    net.eval()
    with torch.no_grad():
        logits, _ = net(held[:-1])
        valid = F.cross_entropy(logits.reshape(-1, len(chars)), held[1:].reshape(-1)).item()
    print(f"epoch {epoch + 1}: train loss {sum(losses) / len(losses):.3f}, valid loss {valid:.4f} ppl {math.exp(valid):.2f}")
