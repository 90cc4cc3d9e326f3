import torch
from torch import nn, optim
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(2)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
train_dl = DataLoader(TensorDataset(X[:1300], y[:1300]), batch_size=64, shuffle=True)
test_dl = DataLoader(TensorDataset(X[1300:], y[1300:]), batch_size=64)
net = nn.Sequential(nn.Dropout(0.3), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.6), nn.Linear(128, 10))
opt = optim.Adam(net.parameters(), 2e-3)
ce = nn.CrossEntropyLoss()
best = 0
for epoch in range(20):
    for x, t in train_dl:
        opt.zero_grad()
        ce(net(x), t).backward()
        opt.step()
    correct = 0
    with torch.no_grad():
        for x, t in test_dl:
            correct += (net(x).argmax(1) == t).sum().item()
    acc = correct / 497
    best = max(best, acc)
    print(f"{epoch} best {best:.4f}")
print(f"best/last acc {acc:.4f}")
