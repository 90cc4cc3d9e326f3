import argparse

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float, default=1.0)
parser.add_argument("--epochs", type=int, default=25)
parser.add_argument("--lr", type=float, default=0.5)
args = parser.parse_args()

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
prep = make_pipeline(StandardScaler()).fit(X_train)
X_train, X_test = (torch.tensor(prep.transform(a), dtype=torch.float32) for a in (X_train, X_test))
y_train, y_test = (torch.tensor(a, dtype=torch.float32) for a in (y_train, y_test))


class LogisticRegression(torch.nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.coef = torch.nn.Parameter(torch.zeros(n_features))
        self.intercept = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x @ self.coef + self.intercept


model = LogisticRegression(X.shape[1])
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: 1 / (1 + 0.3 * e))
loss_fn = torch.nn.BCEWithLogitsLoss()
for epoch in range(args.epochs):
    for batch in torch.randperm(len(y_train)).split(20):
        penalty = 0.5 * model.coef.square().sum() / (args.C * len(y_train))
        loss = loss_fn(model(X_train[batch]), y_train[batch]) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    if (epoch + 1) % 5 == 0:
        with torch.no_grad():
            print(f"epoch {epoch + 1} objective {loss.item():.4f} test log-loss {loss_fn(model(X_test), y_test).item():.4f}")
