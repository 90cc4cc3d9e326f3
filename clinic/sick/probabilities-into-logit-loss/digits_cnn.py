import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset


class DigitsDataset(Dataset):
    def __init__(self, train=True):
        digits = load_digits()
        cut = 1300
        part = slice(0, cut) if train else slice(cut, None)
        self.images = torch.tensor(digits.images[part], dtype=torch.float32).unsqueeze(1) / 8.0 - 1.0
        self.labels = torch.tensor(digits.target[part])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 4 * 4, 10),
            nn.Softmax(dim=1),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def train(epochs=8):
    torch.manual_seed(0)
    train_loader = DataLoader(DigitsDataset(), batch_size=32, shuffle=True)
    test_loader = DataLoader(DigitsDataset(train=False), batch_size=200)
    net = ConvNet()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(epochs):
        net.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
        net.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (net(images).argmax(1) == labels).sum().item()
        print(f"Epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {correct / len(test_loader.dataset):.4f}")


train()
