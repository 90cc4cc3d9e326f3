import numpy as np
import torch
from pydoc_data.topics import topics
from torch import nn
from torch.nn.functional import logsigmoid

rng = np.random.default_rng(0)
torch.manual_seed(0)
words = " ".join(topics.values()).lower().split()[:30000]
counts = {}
for w in words:
    counts[w] = counts.get(w, 0) + 1
kept = sorted(w for w in counts if counts[w] >= 15)
index = {w: i for i, w in enumerate(kept)}
ids = np.array([index[w] for w in words if w in index])
freq = np.bincount(ids) ** 0.75
freq = torch.tensor(freq / freq.sum())
centres, contexts = [], []
for shift in (-2, -1, 1, 2):
    a, b = ids[2:-2], np.roll(ids, shift)[2:-2]
    centres.append(a); contexts.append(b)
centres, contexts = torch.tensor(np.concatenate(centres)), torch.tensor(np.concatenate(contexts))

u = nn.Embedding(len(kept), 24, sparse=True)
v = nn.Embedding(len(kept), 24, sparse=True)
nn.init.uniform_(u.weight, -0.02, 0.02)
nn.init.zeros_(v.weight)
opt = torch.optim.SparseAdam(list(u.parameters()) + list(v.parameters()), lr=0.02)
recent = []
for step in range(500):
    pick = torch.randint(len(centres), (256,))
    noise = torch.multinomial(freq, 256 * 4, replacement=True).view(256, 4)
    c = u(centres[pick])
    good = (c * v(contexts[pick])).sum(1)
    bad = torch.einsum('bd,bkd->bk', c, v(noise))
    loss = -(logsigmoid(good) + logsigmoid(-bad).sum(1)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    recent.append(loss.item())
    if step == 350:
        for group in opt.param_groups:
            group['lr'] = 0.005
    if step % 50 == 49:
        print(f'step {step + 1} loss {np.mean(recent[-50:]):.4f}')
