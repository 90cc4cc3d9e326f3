import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


class FeedForward(nn.Module):
    def __init__(self, n_features, n_classes, n_hidden=3, width=16):
        super().__init__()
        self.hidden_layers = [nn.Linear(n_features if i == 0 else width, width) for i in range(n_hidden)]
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x):
        for layer in self.hidden_layers:
            x = F.relu(layer(x))
        return self.classifier(x)


def accuracy(model, loader):
    hits = count = 0
    with torch.no_grad():
        for xb, yb in loader:
            hits += (model(xb).argmax(dim=1) == yb).sum().item()
            count += len(yb)
    return hits / count


def main():
    torch.manual_seed(42)
    digits = load_digits()
    features = torch.tensor(digits.data, dtype=torch.float32)
    features = (features - features.mean()) / features.std()
    dataset = TensorDataset(features, torch.tensor(digits.target))
    train_set, test_set = random_split(dataset, [1400, 397])
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=128)

    model = FeedForward(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(15):
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.4f}, test accuracy {accuracy(model, test_loader):.4f}")


if __name__ == "__main__":
    main()
