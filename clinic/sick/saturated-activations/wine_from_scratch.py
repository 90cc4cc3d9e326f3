"""Neural network from scratch (only autograd is borrowed) on the wine data."""

import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


class Network:
    def __init__(self, sizes):
        self.weights = [torch.randn(n, m) * 4.0 for n, m in zip(sizes[:-1], sizes[1:])]
        self.biases = [torch.randn(m) for m in sizes[1:]]
        for p in self.parameters():
            p.requires_grad_(True)

    def parameters(self):
        return self.weights + self.biases

    def feedforward(self, a):
        for w, b in zip(self.weights, self.biases):
            a = torch.sigmoid(a @ w + b)
        return a


torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=1, stratify=y)
scaler = StandardScaler().fit(X_train)
X_train = torch.tensor(scaler.transform(X_train), dtype=torch.float32)
X_test = torch.tensor(scaler.transform(X_test), dtype=torch.float32)
y_train, y_test = torch.tensor(y_train), torch.tensor(y_test)
onehot = torch.eye(3)[y_train]

net = Network([13, 24, 24, 3])
opt = torch.optim.SGD(net.parameters(), lr=2.0)

for epoch in range(150):
    for idx in torch.randperm(len(X_train)).split(10):
        loss = 0.5 * ((net.feedforward(X_train[idx]) - onehot[idx]) ** 2).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch % 10 == 9:
        with torch.no_grad():
            out = net.feedforward(X_test)
            full = 0.5 * ((out - torch.eye(3)[y_test]) ** 2).sum(1).mean().item()
            print(f"Epoch {epoch + 1}: {(out.argmax(1) == y_test).sum().item()} / {len(y_test)}, cost {full:.4f}")
