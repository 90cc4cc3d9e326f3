import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)

data = load_breast_cancer()
X_train, X_test, y_train, y_test = train_test_split(
    data.data, data.target, test_size=0.3, random_state=0, stratify=data.target
)
scaler = StandardScaler().fit(X_train)
X_train = torch.from_numpy(scaler.transform(X_train).astype(np.float32))
X_test = torch.from_numpy(scaler.transform(X_test).astype(np.float32))
y_train = torch.from_numpy(y_train.astype(np.float32))
y_test = torch.from_numpy(y_test.astype(np.float32))

model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 1))
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=1.1)

for epoch in range(69):
    perm = torch.randperm(len(X_train))
    losses = []
    for idx in perm.split(32):
        optimizer.zero_grad()
        loss = criterion(model(X_train[idx]).squeeze(1), y_train[idx])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    with torch.no_grad():
        correct = ((model(X_test).squeeze(1) > 0) == (y_test > 0.5)).float().mean().item()
        full_loss = criterion(model(X_train).squeeze(1), y_train).item()
    if epoch % 3 == 2:
        print(f"epoch {epoch + 1}\ttrain {np.mean(losses):.4f}\tfull {full_loss:.4f}\ttest accuracy {correct:.4f}")
