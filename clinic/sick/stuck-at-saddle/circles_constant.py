import torch
import torch.nn.functional as F
from sklearn.datasets import make_circles
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class CircleNet(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.layer1 = nn.Linear(2, hidden)
        self.layer2 = nn.Linear(hidden, 2)
        # small, reproducible start
        for layer in (self.layer1, self.layer2):
            nn.init.constant_(layer.weight, 0.5)
            nn.init.constant_(layer.bias, 0.1)

    def forward(self, x):
        return self.layer2(torch.tanh(self.layer1(x)))


X, y = make_circles(1200, noise=0.08, factor=0.5, random_state=0)
X = torch.tensor(X / X.std(), dtype=torch.float32)
y = torch.tensor(y)
train_dl = DataLoader(TensorDataset(X[:900], y[:900]), batch_size=30, shuffle=True)
net = CircleNet()
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

for epoch in range(30):
    total = 0
    for xb, yb in train_dl:
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(net(xb), yb)
        loss.backward()
        optimizer.step()
        total += loss.item()
    acc = (net(X[900:]).argmax(1) == y[900:]).float().mean()
    if epoch % 5 == 4:
        print("Epoch", epoch + 1, "Loss", round(total / len(train_dl), 4), "Acc", round(acc.item(), 4))
