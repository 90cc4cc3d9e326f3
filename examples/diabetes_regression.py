"""Predict the progress of diabetes one year on from ten measurements: a small network, mean squared error."""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, field
from pathlib import Path

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn


@dataclass
class Config:
    lr: float = 0.003
    gamma: float = 0.95
    epochs: int = 60
    batch_size: int = 32
    hidden: int = 16
    weight_decay: float = 1e-3
    optimizer: str = "rmsprop"
    seed: int = 0
    out: Path | None = None


@dataclass
class Trainer:
    """Owns the model, its data and the optimizer; `fit` trains and keeps a log of every epoch."""

    config: Config
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    log: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        c = self.config
        self.model = nn.Sequential(nn.Linear(10, c.hidden), nn.Tanh(), nn.Linear(c.hidden, 1))
        kind = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[c.optimizer]
        self.optimizer = kind(self.model.parameters(), lr=c.lr, weight_decay=c.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=c.gamma)
        self.mse = nn.MSELoss()

    def fit(self) -> None:
        for epoch in range(self.config.epochs):
            train_loss = self._epoch()
            test_loss = self.test_loss()
            self.log.append({"epoch": epoch, "train": train_loss, "test": test_loss})
            if epoch % 10 == 0 or epoch == self.config.epochs - 1:
                print(f"epoch {epoch:4d} | train mse {train_loss:.4f} | test mse {test_loss:.4f}")
            self.scheduler.step()

    def _epoch(self) -> float:
        x, y = self.train
        losses = [self._step(x[i], y[i]) for i in torch.randperm(len(x)).split(self.config.batch_size)]
        return sum(losses) / len(losses)

    def _step(self, x: Tensor, y: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = self.mse(self.model(x).squeeze(-1), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def test_loss(self) -> float:
        x, y = self.test
        return self.mse(self.model(x).squeeze(-1), y).item()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / "model.pt")
        with (folder / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["epoch", "train", "test"])
            writer.writeheader()
            writer.writerows(self.log)


def standardized(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / values.std(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in vars(Config()).items():
        kind = Path if name == "out" else type(value)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    config = Config(**vars(parser.parse_args()))

    torch.manual_seed(config.seed)
    data = load_diabetes()
    x = standardized(torch.tensor(data.data, dtype=torch.float32))
    y = standardized(torch.tensor(data.target, dtype=torch.float32))
    trainer = Trainer(config, train=(x[:342], y[:342]), test=(x[342:], y[342:]))
    trainer.fit()
    explained = 1 - trainer.test_loss() / trainer.test[1].var().item()
    print(f"explained variance on the test rows: {explained:.3f}")
    if config.out is not None:
        trainer.save(config.out)


if __name__ == "__main__":
    main()
