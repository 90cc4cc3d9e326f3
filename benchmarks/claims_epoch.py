"""An epoch of X5's training against a plain PyTorch loop of the same model: `python benchmarks/claims_epoch.py`.

Both train LeNet-5 on 45,000 images of 3×32×32 with Adam in batches of 64, on one thread, and end each epoch with the
validation loss. The peer is the loop as one writes it: a tensor of images in torch's usual order, shuffled indices,
`torch.optim.Adam`. Ours is `gradwise.lab.training.fit` as X5 calls it, with a plateau attached. They take turns, part
of an epoch each; what is compared is the median over rounds of processor time, which other programs on the machine
disturb less than the clock. Random images take as long as real ones.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch.nn import functional as F

from gradwise.lab.data import Split
from gradwise.lab.models import lenet5
from gradwise.lab.training import fit, seeded
from gradwise.lab.x05_lenet import BATCH, PATIENCE
from gradwise.optim import Adam
from gradwise.schedules import attach, reduce_on_plateau


def plain(train: Split, validation: Split, seed: int) -> float:
    """Seconds of the loop as one writes it."""
    torch.manual_seed(seed)
    model = lenet5()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=PATIENCE)
    began = time.process_time()
    model.train()
    total = 0.0
    order = torch.randperm(len(train))
    for k in range(0, len(order), BATCH):
        rows = order[k : k + BATCH]
        x, y = train.x[rows], train.y[rows]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(y)
    model.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(model(x), y, reduction="sum") for x, y in
                  zip(validation.x.split(1000), validation.y.split(1000), strict=True)]  # type: ignore[no-untyped-call]  # fmt: skip
    scheduler.step(float(sum(losses)) / len(validation))
    return time.process_time() - began


def ours(train: Split, validation: Split, seed: int) -> float:
    """Seconds of X5's."""
    with seeded(seed):
        model = lenet5()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = Adam(model.parameters(), lr=1e-3)
        scheduler = attach(optimizer, reduce_on_plateau(0.1, PATIENCE))
        began = time.process_time()
        fit(model, optimizer, train, batch=BATCH, epochs=1, seed=seed, validation=validation, scheduler=scheduler,
            keep_losses=False)  # fmt: skip
    return time.process_time() - began


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=9000, help="of the 45,000 in an epoch, so that turns are short")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)

    def split(rows: int) -> Split:
        x = torch.randn(rows, 3, 32, 32, generator=generator)
        return Split(x, torch.randint(0, 10, (rows,), generator=generator))

    parts = split(options.rows), split(options.rows // 9)
    last = [Split(part.x.contiguous(memory_format=torch.channels_last), part.y) for part in parts]
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for k in range(options.rounds + 1):  # the first round warms up
        for name in ("plain", "ours") if k % 2 else ("ours", "plain"):
            took = plain(*parts, seed=k) if name == "plain" else ours(last[0], last[1], seed=k)
            if k:
                seconds[name].append(took)
    epoch = 45_000 / options.rows
    a, b = (epoch * median(seconds[name]) for name in ("ours", "plain"))
    ratios = sorted(x / y for x, y in zip(seconds["ours"], seconds["plain"], strict=True))
    print(f"an epoch of 45,000 images on one thread, {torch.__version__}, median of {options.rounds} rounds")
    print(f"  plain PyTorch loop   {b:6.2f} s")
    print(f"  X5's loop            {a:6.2f} s")
    print(f"  ratio                {median(ratios):6.2f}   (rounds: {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
