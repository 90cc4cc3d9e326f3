"""Character-level language model on a nursery rhyme."""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

TEXT = """
This is the house that Jack built.
This is the malt that lay in the house that Jack built.
This is the rat that ate the malt that lay in the house that Jack built.
This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the dog that worried the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the cow with the crumpled horn that tossed the dog that worried the cat that killed the rat
that ate the malt that lay in the house that Jack built.
This is the maiden all forlorn that milked the cow with the crumpled horn that tossed the dog
that worried the cat that killed the rat that ate the malt that lay in the house that Jack built.
"""


@dataclass
class Config:
    hidden: int = 64
    embed: int = 16
    seq_len: int = 32
    batch_size: int = 32
    steps: int = 250
    learning_rate: float = 1.0
    clip: float = 1.0


class CharRNN(nn.Module):
    def __init__(self, vocab, cfg):
        super().__init__()
        self.embed = nn.Embedding(vocab, cfg.embed)
        self.rnn = nn.GRU(cfg.embed, cfg.hidden, batch_first=True)
        self.head = nn.Linear(cfg.hidden, vocab)

    def forward(self, x):
        out, _ = self.rnn(self.embed(x))
        return self.head(out)


def main():
    cfg = Config()
    torch.manual_seed(1337)
    chars = sorted(set(TEXT))
    stoi = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([stoi[c] for c in TEXT])

    model = CharRNN(len(chars), cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)

    running = None
    for step in range(1, cfg.steps + 1):
        start = torch.randint(0, len(data) - cfg.seq_len - 1, (cfg.batch_size,))
        x = torch.stack([data[s : s + cfg.seq_len] for s in start])
        y = torch.stack([data[s + 1 : s + cfg.seq_len + 1] for s in start])
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, len(chars)), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
        optimizer.step()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {running:.4f}")


if __name__ == "__main__":
    main()
