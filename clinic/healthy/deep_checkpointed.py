import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from sklearn.datasets import make_classification


class ResBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.lin1, self.lin2 = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x):
        return x + self.lin2(torch.relu(self.lin1(self.norm(x))))


class Deep(nn.Module):
    def __init__(self, d_in, d=24, depth=10, classes=4):
        super().__init__()
        self.inp = nn.Linear(d_in, d)
        self.blocks = nn.ModuleList(ResBlock(d) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, classes))

    def forward(self, x):
        x = self.inp(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.training else block(x)
        return self.out(x)


torch.manual_seed(2)
X, y = make_classification(3500, 16, n_informative=8, n_redundant=2, n_classes=4, class_sep=1.2, flip_y=0.02, random_state=2)
X = torch.tensor((X - X.mean(0)) / X.std(0)).float()
y = torch.tensor(y)
model = Deep(16)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.1)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=5 * 43, pct_start=0.2)
for epoch in range(5):
    model.train()
    for rows in torch.randperm(2752).split(64):
        loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        print(f"epoch {epoch} train {loss.item():.4f} test loss {nn.functional.cross_entropy(model(X[2752:]), y[2752:]).item():.4f}")
