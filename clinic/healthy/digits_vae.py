import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split


class VAE(nn.Module):
    def __init__(self, latent=6, hidden=96):
        super().__init__()
        self.enc = nn.Linear(64, hidden)
        self.mu = nn.Linear(hidden, latent)
        self.logvar = nn.Linear(hidden, latent)
        self.dec1 = nn.Linear(latent, hidden)
        self.dec2 = nn.Linear(hidden, 64)

    def encode(self, x):
        h = torch.relu(self.enc(x))
        return self.mu(h), self.logvar(h)

    def reparameterize(self, mu, logvar):
        if not self.training:
            return mu
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)

    def forward(self, x):
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar)
        return self.dec2(torch.relu(self.dec1(z))), mu, logvar


def negative_elbo(logits, x, mu, logvar):
    bce = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


torch.manual_seed(1234)
x = torch.tensor(load_digits().data / 16.0, dtype=torch.float32)
train_set, test_set = random_split(TensorDataset(x), [1500, 297])
train_loader = DataLoader(train_set, batch_size=50, shuffle=True)
test_loader = DataLoader(test_set, batch_size=297)
model = VAE()
optimizer = optim.Adam(model.parameters(), lr=3e-3)

for epoch in range(1, 26):
    model.train()
    train_loss = 0
    for (batch,) in train_loader:
        optimizer.zero_grad()
        logits, mu, logvar = model(batch)
        loss = negative_elbo(logits, batch, mu, logvar) / len(batch)
        loss.backward()
        train_loss += loss.item() * len(batch)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        (batch,) = next(iter(test_loader))
        test = negative_elbo(*((lambda o: (o[0], batch, o[1], o[2]))(model(batch)))) / len(batch)
    if epoch % 5 == 0:
        print(f"====> epoch {epoch} train {train_loss / 1500:.3f} test elbo {-test.item():.4f}")
