import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

data, target = load_digits(return_X_y=True)
data = torch.tensor((data - data.mean()) / data.std(), dtype=torch.float32)
x_train, x_val, y_train, y_val = train_test_split(data, torch.tensor(target), test_size=0.2, random_state=0)
train = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(20):
    model.train()
    total = 0.0
    for x, y in train:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        out = model(x_val)
        val_loss = loss_fn(out, y_val).item()
        acc = (out.argmax(dim=1) == y_val).float().mean().item()
    print(f"epoch {epoch:2d} loss {total / len(train):.4f} val loss {val_loss:.4f} acc {acc:.4f}")
