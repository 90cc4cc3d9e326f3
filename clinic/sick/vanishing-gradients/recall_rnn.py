"""Recall the first symbol of a sequence after a long blank."""

import argparse

import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self, symbols, hidden):
        super().__init__()
        self.embed = nn.Embedding(symbols + 1, 16)
        self.rnn = nn.RNN(16, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, tokens):
        states, _ = self.rnn(self.embed(tokens))
        return self.out(states[:, -1])


def get_batch(n, length, symbols):
    target = torch.randint(symbols, (n,))
    blank = torch.full((n, length), symbols)
    return torch.cat([target[:, None], blank], dim=1), target


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=48)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=2e-3)
    opt = parser.parse_args()
    symbols = 5

    model = Model(symbols, opt.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=opt.lr)
    for step in range(opt.steps):
        tokens, target = get_batch(50, opt.length, symbols)
        loss = F.cross_entropy(model(tokens), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 24:
            model.eval()
            with torch.no_grad():
                tokens, target = get_batch(500, opt.length, symbols)
                accuracy = (model(tokens).argmax(-1) == target).float().mean()
            model.train()
            print(f"step {step + 1}: loss {loss.item():.4f}, accuracy {accuracy.item():.3f}")


if __name__ == "__main__":
    main()
