import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


def init_weights(module):
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)


def make_model(n_features):
    model = nn.Sequential(
        nn.Linear(n_features, 32),
        nn.Tanh(),
        nn.Linear(32, 16),
        nn.Tanh(),
        nn.Linear(16, 1),
    )
    return model.apply(init_weights)


def main():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    X_train, X_test, y_train, y_test = map(
        lambda a: torch.tensor(a, dtype=torch.float32), train_test_split(X, y, test_size=0.3, random_state=1)
    )
    model = make_model(X.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.BCEWithLogitsLoss()
    for epoch in range(30):
        for idx in torch.randperm(len(X_train)).split(32):
            optimizer.zero_grad()
            loss = criterion(model(X_train[idx]).squeeze(1), y_train[idx])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            acc = ((model(X_test).squeeze(1) > 0) == (y_test > 0.5)).float().mean().item()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, accuracy {acc:.4f}")


if __name__ == "__main__":
    main()
