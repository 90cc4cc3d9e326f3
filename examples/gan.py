"""A generative adversarial network on a ring of eight Gaussians, with one optimizer for each player."""

import argparse
import math
from pathlib import Path

import torch
import torch.nn as nn


def real_samples(n, modes=8, radius=2.0, std=0.1):
    angles = 2 * math.pi * torch.randint(modes, (n,)) / modes
    centres = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    return centres + std * torch.randn(n, 2)


def mlp(n_in, n_hidden, n_out):
    return nn.Sequential(
        nn.Linear(n_in, n_hidden),
        nn.LeakyReLU(0.2),
        nn.Linear(n_hidden, n_hidden),
        nn.LeakyReLU(0.2),
        nn.Linear(n_hidden, n_out),
    )


@torch.no_grad()
def coverage(generator, n_noise, modes=8, n=1000):
    """How many modes receive at least 2 % of the samples, and the share of samples near any mode."""
    samples = generator(torch.randn(n, n_noise))
    angles = 2 * math.pi * torch.arange(modes) / modes
    distance = torch.cdist(samples, 2.0 * torch.stack([angles.cos(), angles.sin()], dim=1))
    nearest, which = distance.min(dim=1)
    good = nearest < 0.5
    counts = torch.bincount(which[good], minlength=modes)
    return int((counts > 0.02 * n).sum()), good.float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=2e-3, help="generator")
    parser.add_argument("--lr-d", type=float, default=2e-3, help="discriminator")
    parser.add_argument("--beta1", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--noise", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    opt = parser.parse_args()
    print(opt)

    torch.set_num_threads(1)  # the matrices are tiny
    torch.manual_seed(opt.seed)
    generator = mlp(opt.noise, opt.hidden, 2)
    discriminator = mlp(2, opt.hidden, 1)
    adversarial_loss = nn.BCEWithLogitsLoss()
    optimizer_G = torch.optim.Adam(generator.parameters(), lr=opt.lr, betas=(opt.beta1, 0.999))
    optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=opt.lr_d, betas=(opt.beta1, 0.999))
    valid, fake = torch.ones(opt.batch_size, 1), torch.zeros(opt.batch_size, 1)

    for i in range(opt.steps):
        # Train the generator
        optimizer_G.zero_grad()
        samples = generator(torch.randn(opt.batch_size, opt.noise))
        g_loss = adversarial_loss(discriminator(samples), valid)
        g_loss.backward()
        optimizer_G.step()

        # Train the discriminator
        optimizer_D.zero_grad()
        real_loss = adversarial_loss(discriminator(real_samples(opt.batch_size)), valid)
        fake_loss = adversarial_loss(discriminator(samples.detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        d_loss.backward()
        optimizer_D.step()

        if (i + 1) % 100 == 0:
            n_modes, share = coverage(generator, opt.noise)
            print(
                f"[Step {i + 1}/{opt.steps}] [D loss: {d_loss.item():.4f}] [G loss: {g_loss.item():.4f}] "
                f"[modes: {n_modes}/8] [near a mode: {share:.2f}]"
            )

    if opt.out is not None:
        opt.out.mkdir(parents=True, exist_ok=True)
        torch.save(generator.state_dict(), opt.out / "generator.pth")
        torch.save(discriminator.state_dict(), opt.out / "discriminator.pth")


if __name__ == "__main__":
    main()
