"""A variational autoencoder on the digits. The loss is the negative ELBO, summed by hand."""

import argparse
import pathlib

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


class VAE(nn.Module):
    def __init__(self, latent=8, hidden=128):
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar

    @torch.no_grad()
    def sample(self, n):
        return torch.sigmoid(self.decoder(torch.randn(n, self.latent)))


def negative_elbo(x, logits, mu, logvar, beta):
    """Nats per image: reconstruction + beta * KL(q(z|x) || N(0, 1))."""
    reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return (reconstruction + beta * kl) / len(x), kl.item() / len(x)


def set_lr(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def train(args):
    torch.manual_seed(args.seed)
    x = torch.from_numpy(load_digits().data.astype(np.float32) / 16)
    model = VAE(args.latent)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    lr = args.lr
    for epoch in range(args.epochs):
        if args.drop_every and epoch > 0 and epoch % args.drop_every == 0:
            lr *= args.drop
            set_lr(optimizer, lr)
        loss_sum = kl_sum = 0.0
        permutation = torch.randperm(len(x))
        for start in range(0, len(x), args.batch_size):
            batch = x[permutation[start : start + args.batch_size]]
            optimizer.zero_grad()
            loss, kl = negative_elbo(batch, *model(batch), args.beta)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            kl_sum += kl * len(batch)
        print(f"Epoch {epoch + 1:2d}: -ELBO {loss_sum / len(x):.3f} (KL {kl_sum / len(x):.3f}), lr {lr:g}")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--latent", type=int, default=8)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--drop-every", type=int, default=10, help="epochs between drops of the rate; 0: none")
    parser.add_argument("--drop", type=float, default=0.5, help="factor of each drop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="where to put the weights and 64 samples")
    args = parser.parse_args()
    model = train(args)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), args.out / "vae.pt")
        np.save(args.out / "samples.npy", model.sample(64).view(-1, 8, 8).numpy())
