"""A denoising autoencoder in mixed precision (bf16 autocast, GradScaler) with gradient accumulation."""

import argparse
import logging
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
log = logging.getLogger("denoise")


class ResidualAutoencoder(nn.Module):
    def __init__(self, code=24, hidden=128):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, hidden), nn.SiLU(), nn.Linear(hidden, code))
        self.decode = nn.Sequential(nn.Linear(code, hidden), nn.SiLU(), nn.Linear(hidden, 64))

    def forward(self, x):
        return self.decode(self.encode(x))


def corrupt(x, noise):
    return x + noise * torch.randn_like(x)


def run(args):
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    x = torch.tensor(load_digits().data, dtype=torch.float32, device=device) / 16
    x_train, x_val = x[:1500], x[1500:]
    noisy_val = corrupt(x_val, args.noise)
    log.info("noisy images against clean ones: %.5f", (noisy_val - x_val).square().mean())

    model = ResidualAutoencoder().to(device)
    criterion = nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    batches = len(x_train) // args.batch_size
    updates = args.epochs * (batches // args.accumulate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=updates)
    scaler = torch.amp.GradScaler(device.type, enabled=args.amp)

    for epoch in range(args.epochs):
        model.train()
        order = torch.randperm(len(x_train), device=device)
        running = 0.0
        for i in range(updates // args.epochs * args.accumulate):
            clean = x_train[order[i * args.batch_size : (i + 1) * args.batch_size]]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.amp):
                loss = criterion(model(corrupt(clean, args.noise)), clean)
            scaler.scale(loss / args.accumulate).backward()
            running += loss.item()
            if (i + 1) % args.accumulate == 0:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                scheduler.step()

        model.eval()
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.amp):
            val_loss = criterion(model(noisy_val), x_val)
        log.info("epoch %d train %.5f val %.5f", epoch, running / (i + 1), val_loss.item())

    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--accumulate", type=int, default=4, help="batches per optimizer step")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--noise", type=float, default=0.2, help="standard deviation")
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--no-amp", dest="amp", action="store_false", help="float32 throughout")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = run(args)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), args.out / "autoencoder.pt")
