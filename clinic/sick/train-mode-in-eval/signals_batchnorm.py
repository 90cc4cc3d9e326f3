"""1-d convolutional classifier of signal shapes, tested on recordings that come shape by shape."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Shapes(Dataset):
    names = ("sine", "square", "saw", "noise")

    def __init__(self, per_class, length=40):
        t = torch.linspace(0, 4, length)
        waves, labels = [], []
        for k, name in enumerate(self.names):
            phase = torch.rand(per_class, 1)
            u = (t + phase) % 1.0
            wave = {
                "sine": torch.sin(6.2832 * u),
                "square": torch.sign(u - 0.5),
                "saw": 2 * u - 1,
                "noise": torch.randn(per_class, length) * 0.7,
            }[name]
            waves.append(wave + 0.3 * torch.randn(per_class, length))
            labels.append(torch.full((per_class,), k))
        self.waves, self.labels = torch.cat(waves).unsqueeze(1), torch.cat(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.waves[i], self.labels[i]


def make_model():
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 16, 5, stride=2, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 4),
    )


@torch.inference_mode()
def test(model, loader):
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)


def main():
    torch.manual_seed(8)
    train_loader = DataLoader(Shapes(300), batch_size=40, shuffle=True)
    test_loader = DataLoader(Shapes(80), batch_size=16)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=10 * len(train_loader))
    model.train()
    for epoch in range(10):
        for x, y in train_loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"epoch {epoch + 1:2d}  train loss {loss.item():.4f}  test accuracy {test(model, test_loader):.4f}")


if __name__ == "__main__":
    main()
