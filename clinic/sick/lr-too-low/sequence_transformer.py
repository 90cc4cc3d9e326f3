"""Which token of a sequence occurs most often? A one-layer transformer encoder, trained from scratch."""

import torch
from torch import nn

VOCAB, LENGTH, CLASSES = 6, 16, 6
BATCH = 64
LR = 2e-5
WEIGHT_DECAY = 0.01
STEPS = 400

torch.manual_seed(42)


class Encoder(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.tok = nn.Embedding(VOCAB, dim)
        self.pos = nn.Parameter(torch.randn(LENGTH, dim) * 0.02)
        self.layer = nn.TransformerEncoderLayer(dim, nhead=2, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.out = nn.Linear(dim, CLASSES)

    def forward(self, tokens):
        h = self.layer(self.tok(tokens) + self.pos)
        return self.out(h.mean(dim=1))


def make_batch(n):
    probs = torch.rand(n, VOCAB) ** 2
    tokens = torch.multinomial(probs, LENGTH, replacement=True)
    counts = torch.nn.functional.one_hot(tokens, VOCAB).sum(1)
    return tokens, counts.argmax(1)


model = Encoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
test_x, test_y = make_batch(1000)

for step in range(1, STEPS + 1):
    x, y = make_batch(BATCH)
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 0:
        model.eval()
        with torch.no_grad():
            test_loss = nn.functional.cross_entropy(model(test_x), test_y)
        model.train()
        print(f"step {step:4d} | train {loss.item():.3f} | test loss {test_loss.item():.4f}")
