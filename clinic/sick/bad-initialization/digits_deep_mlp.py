import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def init_weights(m):
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, mean=0.0, std=1.0)
        nn.init.zeros_(m.bias)


class MLP(nn.Module):
    def __init__(self, hidden=(100, 100, 100)):
        super().__init__()
        sizes = (64, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.output = nn.Linear(sizes[-1], 10)
        self.apply(init_weights)

    def forward(self, x):
        for layer in self.hidden:
            x = nn.functional.relu(layer(x))
        return self.output(x)


def main():
    torch.manual_seed(123)
    X, y = load_digits(return_X_y=True)
    X = torch.tensor((X - X.mean()) / X.std(), dtype=torch.float32)
    X_train, X_val, y_train, y_val = train_test_split(X, torch.tensor(y), test_size=0.3, random_state=5)
    loader = DataLoader(TensorDataset(X_train, y_train), batch_size=64, shuffle=True)
    model = MLP()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    for epoch in range(1, 16):
        running = 0.0
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            running += loss.item()
        with torch.no_grad():
            out = model(X_val)
            acc = (out.argmax(1) == y_val).float().mean().item()
        print(f"Epoch {epoch:02d} train loss {running / len(loader):.4f} val accuracy {acc:.4f}")


main()
