"""A small causal language model with tied input and output embeddings, on a synthetic grammar."""

import torch
from torch import nn
from torch.nn import functional as F

VOCAB, DIM, CONTEXT = 60, 96, 12


class TinyLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCAB, DIM)
        self.wpe = nn.Embedding(CONTEXT, DIM)
        self.norm1 = nn.LayerNorm(DIM)
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)
        self.norm2 = nn.LayerNorm(DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))
        self.norm = nn.LayerNorm(DIM)

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        q, k, v = self.qkv(self.norm1(x)).split(DIM, dim=-1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        x = x + self.mlp(self.norm2(x))
        return self.norm(x) @ self.wte.weight.T


def make_corpus(n, generator):
    # a second-order chain: the successor depends on the last two tokens
    table = torch.randint(VOCAB, (VOCAB, 4), generator=torch.Generator().manual_seed(1))
    seq = torch.zeros(n, CONTEXT + 1, dtype=torch.long)
    seq[:, 0] = torch.randint(VOCAB, (n,), generator=generator)
    choice = torch.randint(2, (n, CONTEXT), generator=generator)
    for t in range(CONTEXT):
        branch = 2 * (seq[:, t] % 2) + choice[:, t]
        seq[:, t + 1] = table[seq[:, t], branch]
    return seq


torch.manual_seed(10)
data_rng = torch.Generator().manual_seed(10)
model = TinyLM()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
val = make_corpus(256, data_rng)

for it in range(1, 301):
    seq = make_corpus(32, data_rng)
    logits = model(seq[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, VOCAB), seq[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if it % 50 == 0:
        with torch.no_grad():
            val_loss = F.cross_entropy(model(val[:, :-1]).reshape(-1, VOCAB), val[:, 1:].reshape(-1))
        print(f"iter {it}: train {loss.item():.4f}, val {val_loss.item():.4f}")
