import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold


class Classifier(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.fc1 = nn.Linear(n_features, 32)
        self.fc2 = nn.Linear(32, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def main():
    torch.manual_seed(1)
    data = load_breast_cancer()
    X = torch.tensor(data.data, dtype=torch.float32)
    y = torch.tensor(data.target)

    model = Classifier(X.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    scores = []
    for fold, (train_idx, test_idx) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)):
        mean, std = X[train_idx].mean(0), X[train_idx].std(0)
        X_train, X_test = (X[train_idx] - mean) / std, (X[test_idx] - mean) / std
        y_train, y_test = y[train_idx], y[test_idx]

        model = Classifier(X.shape[1])  # start every fold afresh
        for epoch in range(12):
            order = np.random.permutation(len(X_train))
            for chunk in np.array_split(order, 15):
                optimizer.zero_grad()
                loss = criterion(model(X_train[chunk]), y_train[chunk])
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            score = (model(X_test).argmax(1) == y_test).float().mean().item()
        scores.append(score)
        print(f"fold {fold}: loss {loss.item():.4f} score {score:.3f}")
    print(f"mean score {np.mean(scores):.4f}")


if __name__ == "__main__":
    main()
