"""A character-level LSTM on the text of Python's own help pages (which every Python brings along)."""

import argparse
import json
import math
import os
import sys
from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F


def get_args():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--lr", type=float, default=0.02)
    p.add_argument("--optimizer", default="adam", choices=["adam", "rmsprop", "sgd"])
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--bptt", type=int, default=40, help="characters per step of truncated backpropagation")
    p.add_argument("--hidden", type=int, default=96)
    p.add_argument("--clip", type=float, default=1.0, help="0 turns clipping off")
    p.add_argument("--gamma", type=float, default=0.75, help="factor on the rate after each epoch")
    p.add_argument("--chars", type=int, default=40_000, help="length of the training text")
    p.add_argument("--log-every", type=int, default=50)
    p.add_argument("--seed", type=int, default=1234)
    p.add_argument("--out", help="directory for the checkpoint and metrics.json")
    return p.parse_args()


class CharLSTM(nn.Module):
    def __init__(self, n_chars, hidden):
        super().__init__()
        self.embed = nn.Embedding(n_chars, 32)
        self.lstm = nn.LSTM(32, hidden)
        self.decode = nn.Linear(hidden, n_chars)

    def forward(self, x, state):
        y, state = self.lstm(self.embed(x), state)
        return self.decode(y), state


def batchify(ids, batch_size):
    """(length // batch_size, batch_size): one stretch of the text per column."""
    rows = len(ids) // batch_size
    return ids[: rows * batch_size].view(batch_size, rows).t().contiguous()


def get_optimizer(name, params, lr):
    if name == "adam":
        return torch.optim.Adam(params, lr=lr)
    if name == "rmsprop":
        return torch.optim.RMSprop(params, lr=lr)
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def evaluate(model, data, bptt):
    model.eval()
    total, state = 0.0, None
    with torch.no_grad():
        for i in range(0, len(data) - 1, bptt):
            x, y = data[i : i + bptt][: len(data) - 1 - i], data[i + 1 : i + 1 + bptt]
            logits, state = model(x, state)
            total += F.cross_entropy(logits.flatten(0, 1), y.flatten()).item() * len(y)
    return total / (len(data) - 1)


args = get_args()
torch.manual_seed(args.seed)

text = "\n\n".join(topics[name] for name in sorted(topics))[: args.chars + 5000]
chars = sorted(set(text))
ids = torch.tensor([chars.index(c) for c in text])
train = batchify(ids[: args.chars], args.batch_size)
held_out = batchify(ids[args.chars :], args.batch_size)

model = CharLSTM(len(chars), args.hidden)
optimizer = get_optimizer(args.optimizer, model.parameters(), args.lr)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, args.gamma)

step = 0
running = 0.0
for epoch in range(args.epochs):
    model.train()
    state = None
    for i in range(0, len(train) - 1 - args.bptt, args.bptt):
        x, y = train[i : i + args.bptt], train[i + 1 : i + 1 + args.bptt]
        if state is not None:
            state = tuple(s.detach() for s in state)
        logits, state = model(x, state)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())

        optimizer.zero_grad()
        loss.backward()
        if args.clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()

        step += 1
        running += loss.item()
        if step % args.log_every == 0:
            print(f"step {step:5d} | epoch {epoch} | {running / args.log_every / math.log(2):.3f} bits/char")
            sys.stdout.flush()
            running = 0.0
    scheduler.step()

val_loss = evaluate(model, held_out, args.bptt)
print(f"held-out text: {val_loss / math.log(2):.3f} bits/char")
if args.out:
    os.makedirs(args.out, exist_ok=True)
    checkpoint = {"model": model.state_dict(), "chars": "".join(chars)}
    torch.save(checkpoint, os.path.join(args.out, "char_lstm.pth"))
    with open(os.path.join(args.out, "metrics.json"), "w") as f:
        json.dump({"steps": step, "val_loss": val_loss}, f)
