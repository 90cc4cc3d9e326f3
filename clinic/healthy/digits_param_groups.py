import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, DataLoader, random_split


def build_optimizer(model, lr):
    decay, no_decay = [], []
    for name, p in model.body.named_parameters():
        (decay if p.ndim >= 2 else no_decay).append(p)
    return torch.optim.AdamW([
        {"params": decay, "weight_decay": 0.05},
        {"params": no_decay, "weight_decay": 0.0},
        {"params": model.head.parameters(), "lr": 2 * lr, "weight_decay": 0.0},
    ], lr=lr)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(x))


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        return sum((model(x).argmax(1) == y).sum().item() for x, y in loader) / len(loader.dataset)


def main(epochs=8, seed=99):
    torch.manual_seed(seed)
    d = load_digits()
    ds = TensorDataset(torch.tensor(d.data, dtype=torch.float32) / 16 - 0.3, torch.tensor(d.target))
    train, test = random_split(ds, [1400, 397])
    train, test = DataLoader(train, 70, shuffle=True), DataLoader(test, 397)
    model = Classifier()
    optimizer = build_optimizer(model, 4e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * len(train))
    for epoch in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"epoch {epoch} loss {loss:.4f} accuracy {accuracy(model, test):.4f}")
    print(f"final accuracy {accuracy(model, test):.4f}")


if __name__ == "__main__":
    main()
