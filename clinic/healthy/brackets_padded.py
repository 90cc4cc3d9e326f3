"""Tell at each position of a sequence of brackets how deep it is (up to three)."""
import random

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

PAD = -100


class Brackets(Dataset):
    def __init__(self, n, seed):
        rnd = random.Random(seed)
        self.items = []
        for _ in range(n):
            depth, tokens, depths = 0, [], []
            for _ in range(rnd.randint(5, 18)):
                token = 1 if depth == 0 or (depth < 3 and rnd.random() < 0.5) else 2
                depth += 1 if token == 1 else -1
                tokens.append(token)
                depths.append(depth)
            self.items.append((torch.tensor(tokens), torch.tensor(depths)))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def collate(batch):
    batch.sort(key=lambda item: -len(item[0]))
    x, y = zip(*batch)
    return pad_sequence(x, True), pad_sequence(y, True, PAD), torch.tensor([len(s) for s in x])


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 8, padding_idx=0)
        self.gru = nn.GRU(8, 24, batch_first=True)
        self.out = nn.Linear(24, 4)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(self.embed(x), lengths, batch_first=True)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return self.out(states)


train = DataLoader(Brackets(800, 1), batch_size=32, shuffle=True, collate_fn=collate)
test = DataLoader(Brackets(200, 2), batch_size=200, collate_fn=collate)
model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
for epoch in range(10):
    for x, y, lengths in train:
        loss = loss_fn(model(x, lengths).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    scheduler.step()
    with torch.no_grad():
        for x, y, lengths in test:
            mask = y != PAD
            right = (model(x, lengths).argmax(-1) == y)[mask].float().mean().item()
    print(f"epoch {epoch + 1} loss {loss.item():.4f} test accuracy {right:.4f}")
