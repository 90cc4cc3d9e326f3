import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ShallowNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(0.0)
        self.fc1 = nn.Linear(24 * 8 * 8, classes)

    def forward(self, x):
        x = self.activation(self.conv1(x))
        x = self.dropout(x.flatten(1))
        return self.fc1(x)


def run_epoch(model, loader, criterion, optimizer=None):
    model.train(optimizer is not None)
    total_loss, correct, count = 0.0, 0, 0
    with torch.set_grad_enabled(optimizer is not None):
        for images, labels in loader:
            logits = model(images)
            loss = criterion(logits, labels)
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            total_loss += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
    return total_loss / count, correct / count


def main():
    torch.manual_seed(4)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    images = images + 1.0 * torch.randn_like(images)  # a bad camera
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    train_loader = DataLoader(TensorDataset(images[:200], labels[:200]), batch_size=20, shuffle=True)
    val_loader = DataLoader(TensorDataset(images[200:800], labels[200:800]), batch_size=600)

    model = ShallowNet()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(60):
        train_loss, train_acc = run_epoch(model, train_loader, criterion, optimizer)
        val_loss, val_acc = run_epoch(model, val_loader, criterion)
        print(f"{epoch + 1}: train {train_loss:.4f} ({train_acc:.3f}) val {val_loss:.4f} ({val_acc:.3f})")


if __name__ == "__main__":
    main()
