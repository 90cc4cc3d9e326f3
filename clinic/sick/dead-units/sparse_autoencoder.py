"""Sparse, overcomplete autoencoder for pictures of digits."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class SparseAutoencoder(nn.Module):
    def __init__(self, d_in=64, d_hidden=256, bias_init=-5.0):
        super().__init__()
        w = torch.randn(d_in, d_hidden)
        w = w / w.norm(dim=0)
        self.encoder = nn.Parameter(w.clone())
        self.decoder = nn.Parameter(w.T.clone())
        self.b_enc = nn.Parameter(torch.full((d_hidden,), bias_init))  # few features active at a time
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def forward(self, x):
        features = F.relu((x - self.b_dec) @ self.encoder + self.b_enc)
        return features @ self.decoder + self.b_dec, features


def main():
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data, dtype=torch.float32)
    x = (x - x.mean(0)) / (x.std(0) + 1.0)
    x_train, x_val = x[:1500], x[1500:]
    sae = SparseAutoencoder()
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3)
    for epoch in range(20):
        for idx in torch.randperm(len(x_train)).split(64):
            reconstruction, features = sae(x_train[idx])
            loss = F.mse_loss(reconstruction, x_train[idx]) + 1e-4 * features.sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            reconstruction, features = sae(x_val)
            error = F.mse_loss(reconstruction, x_val).item()
            active = (features > 0).float().sum(1).mean().item()
        print(f"epoch {epoch + 1}: error {error:.4f}, {active:.1f} features active")


if __name__ == "__main__":
    main()
