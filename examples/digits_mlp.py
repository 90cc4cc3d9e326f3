"""Classify handwritten digits with a multilayer perceptron."""

import argparse
import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, StepLR
from torch.utils.data import DataLoader, TensorDataset


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--schedule", choices=["none", "step", "exp", "cosine"], default="cosine")
    parser.add_argument("--gamma", type=float, default=0.5, help="factor of the step and exp schedules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the weights and the metrics")
    return parser.parse_args()


def load_data(batch_size):
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32)
    y = torch.tensor(y)
    x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=batch_size, shuffle=True)
    val = DataLoader(TensorDataset(x_val, y_val), batch_size=256)
    return train, val


def make_scheduler(args, optimizer):
    if args.schedule == "step":
        return StepLR(optimizer, step_size=max(1, args.epochs // 4), gamma=args.gamma)
    if args.schedule == "exp":
        return ExponentialLR(optimizer, gamma=args.gamma)
    if args.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=args.epochs)
    return None


def evaluate(model, loader, criterion):
    model.eval()
    loss = correct = count = 0
    with torch.no_grad():
        for x, y in loader:
            logits = model(x)
            loss += criterion(logits, y).item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
            count += len(y)
    return loss / count, correct / count


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    train_loader, val_loader = load_data(args.batch_size)

    model = nn.Sequential(
        nn.Linear(64, args.hidden),
        nn.ReLU(),
        nn.Dropout(args.dropout),
        nn.Linear(args.hidden, args.hidden),
        nn.ReLU(),
        nn.Dropout(args.dropout),
        nn.Linear(args.hidden, 10),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    scheduler = make_scheduler(args, optimizer)

    history = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        if scheduler is not None:
            scheduler.step()

        train_loss = total / len(train_loader.dataset)
        val_loss, accuracy = evaluate(model, val_loader, criterion)
        history.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "accuracy": accuracy})
        print(f"epoch {epoch:3d}  train {train_loss:.4f}  val {val_loss:.4f}  accuracy {accuracy:.4f}")

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), args.out / "model.pt")
        (args.out / "history.json").write_text(json.dumps(history, indent=1))


if __name__ == "__main__":
    main()
