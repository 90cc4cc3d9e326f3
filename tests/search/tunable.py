"""A script that takes arguments, validates after each epoch and prints a test score; each run takes a moment."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
import argparse, os, signal, sys, time
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--hidden", type=int, default=4)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--mode", default="")
parser.add_argument("--mark", default="")
args = parser.parse_args()
torch.manual_seed(0)
x = torch.randn(192, 6)
y = torch.sin(x.sum(1, keepdim=True))
model = torch.nn.Sequential(torch.nn.Linear(6, args.hidden), torch.nn.Tanh(), torch.nn.Linear(args.hidden, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
mse = torch.nn.functional.mse_loss


def validate():
    model.eval()
    with torch.no_grad():
        val_loss = mse(model(x[128:160]), y[128:160]).item()
    model.train()
    return val_loss


for epoch in range(args.epochs):
    for k in range(0, 128, 32):
        optimizer.zero_grad()
        mse(model(x[k : k + 32]), y[k : k + 32]).backward()
        optimizer.step()
    score = validate() if args.mode != "blind" else 0.0
    print(f"epoch {epoch} val {score:.6f}", flush=True)
    if args.mode == "slow" or (args.mode == "hang" and epoch == 1):
        time.sleep(0.4 if args.mode == "slow" else 600)
    if args.mode == "fail":
        raise ValueError("of its own")
with torch.set_grad_enabled(args.mode == "blind"):
    print(f"test score {mse(model(x[160:]), y[160:]).item():.6f}")
"""


def write(folder: Path) -> Path:
    """The script in a folder."""
    path = folder / "train.py"
    path.write_text(SCRIPT)
    return path
