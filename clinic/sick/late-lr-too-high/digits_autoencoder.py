import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 16))
        self.dec = nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 64))

    def forward(self, x):
        return self.dec(self.enc(x))


def run(epochs=16, lr=0.015, batch_size=8, seed=0):
    torch.manual_seed(seed)
    images = torch.tensor(load_digits().data, dtype=torch.float32)
    images = (images - images.mean()) / images.std()
    loader = DataLoader(TensorDataset(images[:1000]), batch_size=batch_size, shuffle=True, drop_last=True)
    held_out = images[1000:]

    ae = AutoEncoder()
    optimizer = torch.optim.Adam(ae.parameters(), lr=lr)
    for epoch in range(epochs):
        for (batch,) in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = F.mse_loss(ae(batch), batch)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            train = F.mse_loss(ae(images[:1000]), images[:1000])
            valid = F.mse_loss(ae(held_out), held_out)
        print(f"epoch {epoch + 1:3d}: train {train:.4f} valid {valid:.4f}")


run()
