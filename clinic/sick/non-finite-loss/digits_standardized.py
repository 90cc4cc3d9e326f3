from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


@dataclass
class Hyper:
    hidden: int = 64
    lr: float = 0.1
    epochs: int = 12
    batch: int = 50


def standardize(train, test):
    mean = train.mean(axis=0)
    std = train.std(axis=0)
    return (train - mean) / std, (test - mean) / std


def main(hp):
    np.random.seed(1)
    torch.manual_seed(1)
    digits = load_digits()
    order = np.random.permutation(len(digits.data))
    data, target = digits.data[order].astype(np.float32), digits.target[order]
    x_train, x_test = standardize(data[:1400], data[1400:])
    x_train, x_test = torch.from_numpy(x_train), torch.from_numpy(x_test)
    y_train, y_test = torch.from_numpy(target[:1400]), torch.from_numpy(target[1400:])

    model = nn.Sequential(nn.Linear(64, hp.hidden), nn.ReLU(), nn.Linear(hp.hidden, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=hp.lr)
    for epoch in range(hp.epochs):
        for i in range(0, 1400, hp.batch):
            loss = nn.functional.cross_entropy(model(x_train[i : i + hp.batch]), y_train[i : i + hp.batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        shuffle = torch.randperm(1400)
        x_train, y_train = x_train[shuffle], y_train[shuffle]
        hits = (model(x_test).argmax(1) == y_test).float().mean()
        print(epoch, "loss", round(loss.item(), 4), "accuracy", round(hits.item(), 4))


if __name__ == "__main__":
    main(Hyper())
