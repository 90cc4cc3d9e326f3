"""Adding problem: a GRU reads 20 numbers and two markers, and returns the sum of the marked ones."""

import argparse

import torch
from torch import nn


class AddingModel(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.rnn = nn.GRU(2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.out(h[-1]).squeeze(-1)


def make_data(n, length):
    values = torch.rand(n, length)
    markers = torch.zeros(n, length)
    first = torch.randint(0, length // 2, (n,))
    second = torch.randint(length // 2, length, (n,))
    rows = torch.arange(n)
    markers[rows, first] = 1.0
    markers[rows, second] = 1.0
    target = (values * markers).sum(1)
    return torch.stack([values * 2 - 1, markers], dim=-1), target


class Trainer:
    def __init__(self, model, lr, batch_size):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.loss_fn = nn.MSELoss()
        self.batch_size = batch_size

    def train_epoch(self, x, y):
        self.model.train()
        self.optimizer.zero_grad()
        order = torch.randperm(len(x))
        total = 0.0
        for start in range(0, len(x), self.batch_size):
            batch = order[start : start + self.batch_size]
            loss = self.loss_fn(self.model(x[batch]), y[batch])
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
        return total / len(x)

    @torch.no_grad()
    def evaluate(self, x, y):
        self.model.eval()
        return self.loss_fn(self.model(x), y).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    x, y = make_data(2000, 12)
    x_val, y_val = make_data(500, 12)
    trainer = Trainer(AddingModel(), args.lr, args.batch_size)
    for epoch in range(args.epochs):
        train_mse = trainer.train_epoch(x, y)
        print(f"[{epoch:03d}] train mse {train_mse:.5f} | val mse {trainer.evaluate(x_val, y_val):.5f}")


if __name__ == "__main__":
    main()
