"""Few patients, many genes: predict the response from a wide table with a dropout network."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class GeneNet(nn.Module):
    def __init__(self, n_genes, hidden=128, p=0.5):
        super().__init__()
        self.drop_in = nn.Dropout(p)
        self.fc1 = nn.Linear(n_genes, hidden)
        self.drop = nn.Dropout(0.5)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, x):
        x = F.relu(self.fc1(self.drop_in(x)))
        return self.fc2(self.drop(x)).squeeze(1)


class Experiment:
    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        weight = rng.standard_normal(150) * (rng.random(150) < 0.3)
        x = rng.standard_normal((1600, 150))
        logit = 0.8 * x @ weight / np.sqrt((weight**2).sum() / 4)
        y = rng.random(1600) < 1 / (1 + np.exp(-logit))
        x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
        self.x, self.y, self.x_val, self.y_val = x[:600], y[:600], x[600:], y[600:]
        self.model = GeneNet(150)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def fit(self, epochs):
        self.model.train()
        for epoch in range(epochs):
            perm = torch.randperm(len(self.x))
            for idx in perm.split(30):
                loss = F.binary_cross_entropy_with_logits(self.model(self.x[idx]), self.y[idx])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            if (epoch + 1) % 5 == 0:
                print(f"epoch {epoch + 1} train_loss {loss.item():.4f} val_loss {self.validate():.4f}")

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        return F.binary_cross_entropy_with_logits(self.model(self.x_val), self.y_val).item()


Experiment().fit(epochs=30)
