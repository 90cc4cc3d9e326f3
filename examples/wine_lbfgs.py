"""Multinomial logistic regression on the wine data, fitted on all rows at once with L-BFGS."""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the matrices are tiny

import torch
from sklearn.datasets import load_wine

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1.0)
parser.add_argument("--line-search", choices=["none", "strong_wolfe"], default="strong_wolfe")
parser.add_argument("--epochs", type=int, default=50, help="L-BFGS steps, of --max-iter iterations each")
parser.add_argument("--max-iter", type=int, default=2)
parser.add_argument("--tolerance", type=float, default=1e-7, help="gradient norm to stop at")
parser.add_argument("--l2", type=float, default=1e-4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out")
args = parser.parse_args()

torch.manual_seed(args.seed)
torch.set_default_dtype(torch.float64)

wine = load_wine()
x = torch.tensor(wine.data)
x = (x - x.mean(0)) / x.std(0)
y = torch.tensor(wine.target)
shuffled = torch.randperm(len(x))
train, test = shuffled[:140], shuffled[140:]

weight = torch.randn(13, 3).mul_(0.1).requires_grad_()
bias = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.LBFGS(
    [weight, bias],
    lr=args.lr,
    max_iter=args.max_iter,
    tolerance_change=1e-14,
    line_search_fn=None if args.line_search == "none" else args.line_search,
)


def closure():
    optimizer.zero_grad()
    log_p = torch.log_softmax(x[train] @ weight + bias, dim=1)
    loss = -log_p.gather(1, y[train, None]).mean() + args.l2 * weight.pow(2).sum()
    loss.backward()
    return loss


for i in range(args.epochs):
    loss = optimizer.step(closure)
    gradient = torch.cat([weight.grad.flatten(), bias.grad]).norm()
    if i % 5 == 0:
        print(f"{i:3d}: loss {loss.item():.8f}, |gradient| {gradient:.1e}")
    if gradient < args.tolerance:
        print(f"converged after {i + 1} steps: loss {loss.item():.8f}")
        break

accuracy = ((x[test] @ weight + bias).argmax(1) == y[test]).double().mean()
print(f"test accuracy: {accuracy:.3f}")

if args.out:
    os.makedirs(args.out, exist_ok=True)
    torch.save({"weight": weight.detach(), "bias": bias.detach()}, os.path.join(args.out, "wine.pt"))
