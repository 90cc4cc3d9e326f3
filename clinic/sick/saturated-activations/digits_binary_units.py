import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


class SteepSigmoid(nn.Module):
    """Nearly binary units, for a network that is to be binarized later."""

    def __init__(self, slope=40.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return torch.sigmoid(self.slope * x)


def accuracy(model, loader):
    hits = n = 0
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            hits += int((model(x).argmax(1) == y).sum())
            n += len(y)
    model.train()
    return hits / n


if __name__ == "__main__":
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float64)
    x = (x - x.mean()) / x.std()
    full = TensorDataset(x, torch.tensor(digits.target))
    train_set, test_set = random_split(full, [1400, 397], generator=torch.Generator().manual_seed(0))
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=397)

    model = nn.Sequential(
        nn.Linear(64, 64),
        SteepSigmoid(),
        nn.Linear(64, 64),
        SteepSigmoid(),
        nn.Linear(64, 64),
        SteepSigmoid(),
        nn.Linear(64, 10),
    ).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()

    for epoch in range(12):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
        print("epoch", epoch + 1, "loss", f"{loss.item():.4f}", "accuracy", f"{accuracy(model, test_loader):.4f}")
