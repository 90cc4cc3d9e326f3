"""Multi-layer perceptron, after a TensorFlow 1 tutorial."""

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.preprocessing import StandardScaler
from torch import nn

KEEP_PROB = 0.9
BATCH_SIZE = 50
LEARNING_RATE = 0.002


class MLP(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.h1 = nn.Linear(n_features, 64)
        self.h2 = nn.Linear(64, 64)
        self.out = nn.Linear(64, n_classes)
        self.drop = nn.Dropout(KEEP_PROB)

    def forward(self, x):
        x = self.drop(torch.relu(self.h1(x)))
        x = self.drop(torch.relu(self.h2(x)))
        return self.out(x)


def main():
    torch.manual_seed(31)
    X, y = make_classification(
        n_samples=4000, n_features=16, n_informative=10, n_classes=5, n_clusters_per_class=2, class_sep=1.6, random_state=7
    )
    X = StandardScaler().fit_transform(X).astype(np.float32)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    X_train, y_train, X_test, y_test = X[:3000], y[:3000], X[3000:], y[3000:]

    mlp = MLP(16, 5)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(15):
        mlp.train()
        avg_cost = 0.0
        for idx in torch.randperm(3000).split(BATCH_SIZE):
            optimizer.zero_grad()
            cost = criterion(mlp(X_train[idx]), y_train[idx])
            cost.backward()
            optimizer.step()
            avg_cost += cost.item() * len(idx) / 3000
        mlp.eval()
        with torch.no_grad():
            accuracy = (mlp(X_test).argmax(1) == y_test).float().mean().item()
        print("Epoch:", f"{epoch + 1:04d}", "cost =", f"{avg_cost:.5f}", "accuracy =", f"{accuracy:.4f}")


if __name__ == "__main__":
    main()
