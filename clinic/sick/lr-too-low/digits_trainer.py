from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self, images, labels, mean, std):
        self.images = (torch.as_tensor(images, dtype=torch.float32) - mean) / std
        self.labels = torch.as_tensor(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


class Trainer:
    def __init__(self, model, optimizer, train_loader, valid_loader):
        self.model = model
        self.optimizer = optimizer
        self.train_loader = train_loader
        self.valid_loader = valid_loader
        self.criterion = nn.CrossEntropyLoss()

    def train_epoch(self):
        self.model.train()
        losses = []
        for images, labels in self.train_loader:
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        correct = total = 0
        for images, labels in self.valid_loader:
            correct += (self.model(images).argmax(dim=1) == labels).sum().item()
            total += len(labels)
        return correct / total

    def fit(self, epochs):
        for epoch in range(epochs):
            loss = self.train_epoch()
            print(f"[{epoch + 1:02d}/{epochs}] loss={loss:.4f} val_acc={self.evaluate():.4f}")


if __name__ == "__main__":
    torch.manual_seed(7)
    data = load_digits()
    tr_x, va_x, tr_y, va_y = train_test_split(data.data, data.target, test_size=300, random_state=1)
    mean, std = tr_x.mean(), tr_x.std()
    train_loader = DataLoader(Digits(tr_x, tr_y, mean, std), batch_size=64, shuffle=True)
    valid_loader = DataLoader(Digits(va_x, va_y, mean, std), batch_size=256)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    Trainer(model, optimizer, train_loader, valid_loader).fit(epochs=20)
