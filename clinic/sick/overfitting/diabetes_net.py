import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)
np.random.seed(0)

X, y = load_diabetes(return_X_y=True)
X = StandardScaler().fit_transform(X)
y = (y - y.mean()) / y.std()
idx = np.random.permutation(len(X))
train_idx, val_idx = idx[:120], idx[120:]
X_tr = torch.tensor(X[train_idx], dtype=torch.float32)
y_tr = torch.tensor(y[train_idx], dtype=torch.float32).unsqueeze(1)
X_va = torch.tensor(X[val_idx], dtype=torch.float32)
y_va = torch.tensor(y[val_idx], dtype=torch.float32).unsqueeze(1)

model = nn.Sequential(
    nn.Linear(10, 128),
    nn.ReLU(),
    nn.Linear(128, 128),
    nn.ReLU(),
    nn.Linear(128, 1),
)
loss_fn = nn.MSELoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
EPOCHS = 150

for epoch in range(1, EPOCHS + 1):
    model.train()
    perm = torch.randperm(len(X_tr))
    total = 0.0
    for i in range(0, len(X_tr), 20):
        b = perm[i : i + 20]
        optimizer.zero_grad()
        loss = loss_fn(model(X_tr[b]), y_tr[b])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(b)
    model.eval()
    with torch.no_grad():
        val_loss = loss_fn(model(X_va), y_va).item()
    if epoch % 5 == 0:
        print(f"epoch {epoch:3d}  train_loss {total / len(X_tr):.4f}  val_loss {val_loss:.4f}")
