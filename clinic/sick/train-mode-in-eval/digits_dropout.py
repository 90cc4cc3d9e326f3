import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

digits = load_digits()
X = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
y = torch.from_numpy(digits.target)
train_set, val_set = random_split(TensorDataset(X, y), [1297, 500], generator=torch.Generator().manual_seed(0))
loaders = {
    "train": DataLoader(train_set, batch_size=32, shuffle=True),
    "val": DataLoader(val_set, batch_size=100),
}

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Dropout2d(0.3),
    nn.Flatten(),
    nn.Linear(16 * 16, 64),
    nn.ReLU(),
    nn.Dropout(0.5),
    nn.Linear(64, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

for epoch in range(8):
    net.train()
    train_loss = 0.0
    for inputs, labels in loaders["train"]:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        train_loss += loss.item()

    val_loss, val_correct = 0.0, 0
    with torch.no_grad():
        for inputs, labels in loaders["val"]:
            outputs = net(inputs)
            val_loss += criterion(outputs, labels).item()
            val_correct += (outputs.argmax(1) == labels).sum().item()
    print(
        f"epoch {epoch}: train loss {train_loss / len(loaders['train']):.4f}, "
        f"val loss {val_loss / len(loaders['val']):.4f}, val acc {val_correct / len(val_set):.4f}"
    )
