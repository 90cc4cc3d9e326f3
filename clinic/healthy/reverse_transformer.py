import argparse
import torch
import torch.nn as nn


class Reverser(nn.Module):
    def __init__(self, vocab=12, length=10, dim=48, heads=4, layers=2):
        super().__init__()
        self.tok = nn.Embedding(vocab, dim)
        self.pos = nn.Parameter(torch.randn(length, dim) * 0.1)
        layer = nn.TransformerEncoderLayer(dim, heads, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.tok(ids) + self.pos)))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--steps', type=int, default=300)
    ap.add_argument('--lr', type=float, default=3e-3)
    ap.add_argument('--batch-size', type=int, default=48)
    ap.add_argument('--seed', type=int, default=0)
    opts = ap.parse_args()
    torch.manual_seed(opts.seed)
    model = Reverser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=opts.lr, weight_decay=0.01)
    warmup = 40
    factor = lambda s: min((s + 1) / warmup, max(0.02, (opts.steps - s) / (opts.steps - warmup)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    criterion = nn.CrossEntropyLoss()
    for step in range(opts.steps):
        ids = torch.randint(0, 12, (opts.batch_size, 10))
        logits = model(ids)
        loss = criterion(logits.flatten(0, 1), ids.flip(1).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if (step + 1) % 50 == 0:
            print(f'{step + 1:5d} loss {loss.item():.4f}')
    model.eval()
    with torch.no_grad():
        ids = torch.randint(0, 12, (500, 10))
        right = (model(ids).argmax(-1) == ids.flip(1)).float().mean()
    print(f'token accuracy {right.item():.4f}')


if __name__ == '__main__':
    main()
