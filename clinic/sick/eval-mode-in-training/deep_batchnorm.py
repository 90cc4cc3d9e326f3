import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


def block(n_in, n_out):
    return [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Sigmoid()]


class DeepNet(nn.Module):
    def __init__(self, depth=5, width=48):
        super().__init__()
        layers = block(64, width)
        for _ in range(depth - 1):
            layers += block(width, width)
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        return self.out(self.body(x))


def evaluate(model, loader):
    model.eval()
    correct, total = 0, 0
    with torch.no_grad():
        for x, y in loader:
            correct += (model(x).argmax(1) == y).sum().item()
            total += y.numel()
    return correct / total


def main():
    torch.manual_seed(0)
    digits = load_digits()
    X = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    X = (X - X.mean()) / X.std()
    y = torch.tensor(digits.target)
    X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=400, random_state=0)
    train_loader = DataLoader(TensorDataset(X_train, y_train), batch_size=64, shuffle=True)
    val_loader = DataLoader(TensorDataset(X_val, y_val), batch_size=200)

    model = DeepNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    model.train()
    print(f"before training: val accuracy {evaluate(model, val_loader):.4f}")
    for epoch in range(1, 16):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.4f} val accuracy {evaluate(model, val_loader):.4f}")


if __name__ == "__main__":
    main()
