import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

torch.manual_seed(6)
n = 1500
x = torch.randn(n, 6)
y = (x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]) + 0.5 * x[:, 3] + 0.3 * torch.randn(n))[:, None]
x_train, y_train, x_val, y_val = x[:1100], y[:1100], x[1100:], y[1100:]


class Regressor(nn.Module):
    def __init__(self, width=40):
        super().__init__()
        self.fc1 = nn.Linear(6, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, 1)

    def forward(self, x):
        x = torch.tanh(self.fc1(x))
        x = torch.tanh(self.fc2(x))
        return self.fc3(x)


model = Regressor()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
scheduler = ReduceLROnPlateau(optimizer, factor=0.3, patience=3)
best = float("inf")
for epoch in range(45):
    model.train()
    train_loss = 0.0
    for idx in torch.randperm(len(x_train)).split(64):
        loss = nn.functional.mse_loss(model(x_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        train_loss += loss.item() * len(idx) / len(x_train)
    model.eval()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(x_val), y_val).item()
    scheduler.step(val)
    best = min(best, val)
    lr = optimizer.param_groups[0]["lr"]
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1} lr {lr:.1e} train {train_loss:.4f} val {val:.4f} best val {best:.4f}")
    if lr < 1e-4:
        break
