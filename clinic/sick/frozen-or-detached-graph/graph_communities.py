"""Node classification on a random community graph with two rounds of message passing."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

rng = np.random.default_rng(5)
n_nodes, n_classes, n_features = 400, 4, 40
labels = rng.integers(0, n_classes, n_nodes)
same = labels[:, None] == labels[None, :]
adjacency = (rng.random((n_nodes, n_nodes)) < np.where(same, 0.03, 0.008)).astype(np.float32)
adjacency = np.maximum(adjacency, adjacency.T)
np.fill_diagonal(adjacency, 1.0)
adjacency /= adjacency.sum(1, keepdims=True)

centres = 0.35 * rng.standard_normal((n_classes, n_features))
features = torch.tensor(centres[labels] + rng.standard_normal((n_nodes, n_features)), dtype=torch.float32)
target = torch.tensor(labels)
train_mask = torch.tensor(rng.random(n_nodes) < 0.5)


class GraphNet(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.lin1 = nn.Linear(n_features, hidden)
        self.lin2 = nn.Linear(hidden, n_classes)

    def aggregate(self, h):
        # the averaging over neighbours is cheap in numpy
        return torch.from_numpy(adjacency @ h.detach().numpy())

    def forward(self, x):
        h = F.elu(self.lin1(x))
        h = self.aggregate(h)
        h = self.lin2(h)
        return h


torch.manual_seed(5)
net = GraphNet()
optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(1, 401):
    net.train()
    logits = net(features)
    loss = F.cross_entropy(logits[train_mask], target[train_mask])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 50 == 0:
        net.eval()
        with torch.no_grad():
            pred = net(features).argmax(1)
        test = (pred[~train_mask] == target[~train_mask]).float().mean().item()
        print(f"Epoch {epoch:3d}, Loss: {loss.item():.4f}, Test: {test:.4f}")
