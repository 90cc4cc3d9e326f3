"""Digits arranged like an image folder: one directory after the other."""

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset


class DigitFolders(Dataset):
    def __init__(self, split):
        digits = load_digits()
        self.samples = []
        for digit in range(10):
            images = digits.images[digits.target == digit]
            cut = int(0.75 * len(images))
            for image in images[:cut] if split == "train" else images[cut:]:
                self.samples.append((image, digit))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, label = self.samples[index]
        return torch.tensor(image, dtype=torch.float32).unsqueeze(0) / 8 - 1, label


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3)
        self.fc1 = nn.Linear(12 * 3 * 3, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


torch.manual_seed(0)
dataloader_params = {"batch_size": 32, "num_workers": 0}
train_loader = DataLoader(DigitFolders("train"), **dataloader_params)
test_loader = DataLoader(DigitFolders("test"), **dataloader_params)
net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

for epoch in range(8):
    net.train()
    seen = 0.0
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        seen += loss.item()
    net.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in test_loader:
            correct += (net(images).argmax(1) == labels).sum().item()
    print(f"[{epoch + 1}] loss: {seen / len(train_loader):.3f} accuracy: {correct / len(test_loader.dataset):.4f}")
