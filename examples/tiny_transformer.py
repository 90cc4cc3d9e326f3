"""Teach a small decoder-only transformer to sort digits: given "3 1 2 =" it continues "1 2 3"."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Shape:
    length: int = 6
    vocabulary: int = 11  # ten digits and "="
    width: int = 48
    heads: int = 4
    layers: int = 2

    @property
    def context(self) -> int:
        return 2 * self.length


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attention = Attention(shape)
        self.mlp = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width), nn.GELU(), nn.Linear(4 * shape.width, shape.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.zeros(shape.context, shape.width))
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions[: x.shape[1]])))


def make_batch(shape: Shape, size: int) -> tuple[Tensor, Tensor]:
    """Inputs "digits = sorted" without the last digit, targets the sorted digits."""
    digits = torch.randint(10, (size, shape.length))
    answer = digits.sort(dim=1).values
    equals = torch.full((size, 1), 10)
    return torch.cat([digits, equals, answer[:, :-1]], dim=1), answer


def loss_of(model: Decoder, shape: Shape, size: int) -> tuple[Tensor, float]:
    inputs, answer = make_batch(shape, size)
    logits = model(inputs)[:, shape.length :]
    right = (logits.argmax(-1) == answer).all(dim=1).float().mean().item()
    return F.cross_entropy(logits.flatten(0, 1), answer.flatten()), right


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate at the end of the warm-up")
    parser.add_argument("--min-lr-ratio", type=float, default=0.05, help="what the cosine ends at, over --lr")
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    def lr_lambda(step: int) -> float:
        if step < args.warmup:
            return (step + 1) / args.warmup
        progress = (step - args.warmup) / max(1, args.steps - args.warmup)
        return args.min_lr_ratio + (1 - args.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    torch.set_num_threads(1)  # the matrices are tiny
    torch.manual_seed(args.seed)
    shape = Shape()
    model = Decoder(shape)
    optimizer = torch.optim.AdamW(decay_groups(model, args.weight_decay), lr=args.lr, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda)
    for step in range(args.steps):
        loss, _ = loss_of(model, shape, args.batch_size)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        if (step + 1) % args.eval_every == 0:
            model.eval()
            with torch.no_grad():
                val_loss, right = loss_of(model, shape, 256)
            model.train()
            print(f"{step + 1:5d}  loss {loss.item():.4f}  val {val_loss.item():.4f}  sorted {right:.1%}")

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), args.out / "decoder.pt")


if __name__ == "__main__":
    main()
