import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

torch.manual_seed(0)
X, y = load_breast_cancer(return_X_y=True)
X = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.5)
criterion = nn.BCEWithLogitsLoss()
for epoch in range(40):
    for idx in torch.randperm(450).split(32):
        optimizer.zero_grad()
        loss = criterion(model(X[idx]).view(-1), y[idx])
        loss.backward()
        optimizer.step()
    if epoch % 8 == 7:
        with torch.no_grad():
            out = model(X[450:]).view(-1)
            print(f"epoch {epoch + 1} loss {criterion(out, y[450:]).item():.4f} acc {((out > 0) == y[450:].bool()).float().mean().item():.4f}")
