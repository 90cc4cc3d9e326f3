"""A small convolutional network with batch normalization on the 8x8 digits."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from engine import evaluate, train_one_epoch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split


class DigitsNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            self.block(1, width),
            nn.MaxPool2d(2),
            self.block(width, 2 * width),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(8 * width, 10)

    @staticmethod
    def block(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).flatten(1))


def random_shift(images: torch.Tensor) -> torch.Tensor:
    """Shift the whole batch by up to one pixel in each direction."""
    return images.roll((random.randint(-1, 1), random.randint(-1, 1)), dims=(2, 3))


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def main(args: argparse.Namespace) -> None:
    seed_everything(args.seed)

    digits = load_digits()
    images = torch.as_tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    dataset = TensorDataset(images, torch.as_tensor(digits.target))
    train, val = random_split(dataset, [0.8, 0.2], generator=torch.Generator().manual_seed(42))
    train_loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    val_loader = DataLoader(val, 512)

    model = DigitsNet(args.width)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(train)} training images")

    if args.optimizer == "adam":
        optimizer = Adam(model.parameters(), lr=args.lr)
    else:
        optimizer = SGD(model.parameters(), lr=args.lr, momentum=args.momentum)
    steps = args.epochs * len(train_loader)
    scheduler = {
        "onecycle": lambda: OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps),
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=args.t_max or steps),
        "step": lambda: StepLR(optimizer, step_size=max(1, steps // 3), gamma=args.gamma),
        "none": lambda: ConstantLR(optimizer, factor=1.0),
    }[args.schedule]()

    augment = random_shift if args.shift else None
    for epoch in range(args.epochs):
        loss = train_one_epoch(model, train_loader, optimizer, scheduler, augment)
        val_loss, accuracy = evaluate(model, val_loader)
        print(f"[{epoch + 1}/{args.epochs}] loss={loss:.4f} val_loss={val_loss:.4f} val_acc={accuracy:.2%}")

    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": args.epochs}
        torch.save(state, args.out / "checkpoint.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--momentum", type=float, default=0.9, help="for --optimizer sgd")
    parser.add_argument("--schedule", choices=("onecycle", "cosine", "step", "none"), default="onecycle")
    parser.add_argument("--t-max", type=int, help="steps of half a cosine (default: all)")
    parser.add_argument("--gamma", type=float, default=0.1, help="factor of the step schedule")
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--no-shift", dest="shift", action="store_false", help="train without augmentation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    main(parser.parse_args())
