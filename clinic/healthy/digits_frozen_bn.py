import torch
import torch.nn as nn
from sklearn.datasets import load_digits


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Linear(96, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def freeze_bn(module):
    if isinstance(module, nn.BatchNorm2d):
        module.eval()


def loop(model, x, y, lr, epochs, batch, keep_statistics):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, epochs // 2), 0.2)
    for _ in range(epochs):
        model.train()
        if keep_statistics:
            model.apply(freeze_bn)
        for i in torch.randperm(len(x)).split(batch):
            loss = nn.functional.cross_entropy(model(x[i]), y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    return loss.item()


@torch.no_grad()
def test(model, x, y):
    model.eval()
    out = model(x)
    return nn.functional.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
y = torch.tensor(digits.target)
perm = torch.randperm(len(y))
x, y = x[perm], y[perm]
model = ConvNet()
loop(model, x[:1000], y[:1000], 0.01, 4, 50, False)
print("upright: loss {:.4f} accuracy {:.4f}".format(*test(model, x[1400:], y[1400:])))
turned = x.transpose(2, 3)
print("turned before: loss {:.4f} accuracy {:.4f}".format(*test(model, turned[1400:], y[1400:])))
for round_ in range(3):
    loop(model, turned[1000:1400], y[1000:1400], 8e-3 / (1 + round_), 3, 8, True)
    loss, acc = test(model, turned[1400:], y[1400:])
    print(f"turned round {round_ + 1}: accuracy {acc:.4f} shifted test loss {loss:.4f}")
