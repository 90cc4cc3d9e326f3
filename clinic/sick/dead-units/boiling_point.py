"""Predict a temperature in kelvin from four standardized descriptors."""

import torch
from torch import nn


class BoilingPoint(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 1)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


def dataset(n):
    x = torch.randn(n, 4)
    y = 380.0 + 25.0 * torch.tanh(x[:, :1] + 0.5 * x[:, 1:2]) + 8.0 * x[:, 2:3] * x[:, 3:4]
    return x, y


def main():
    torch.manual_seed(21)
    x, y = dataset(2000)
    x_val, y_val = dataset(500)
    model = BoilingPoint()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    loss_fn = nn.MSELoss()
    for epoch in range(30):
        for idx in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            loss = loss_fn(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            rmse = loss_fn(model(x_val), y_val).sqrt().item()
        print(f"epoch {epoch + 1}/30 loss {loss.item():.2f} val rmse {rmse:.3f} K")


if __name__ == "__main__":
    main()
