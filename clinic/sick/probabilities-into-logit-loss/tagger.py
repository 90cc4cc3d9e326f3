"""Multi-label tagging: each sample carries a few of 12 tags."""

import numpy as np
import torch
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import nn

X, Y = make_multilabel_classification(n_samples=2400, n_features=40, n_classes=12, n_labels=2, random_state=4)
X = StandardScaler().fit_transform(X)
X, Y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y, dtype=torch.float32)
X_train, Y_train, X_val, Y_val = X[:1800], Y[:1800], X[1800:], Y[1800:]


class Tagger(nn.Module):
    def __init__(self, n_in, n_tags):
        super().__init__()
        self.hidden = nn.Linear(n_in, 48)
        self.output = nn.Linear(48, n_tags)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        return torch.sigmoid(self.output(x))


model = Tagger(40, 12)
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

batch_size = 60
for epoch in range(20):
    order = np.random.permutation(len(X_train))
    losses = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        optimizer.zero_grad()
        loss = criterion(model(X_train[rows]), Y_train[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        scores = model(X_val).numpy()
    mean_ap = average_precision_score(Y_val.numpy(), scores, average="macro")
    print(f"epoch {epoch:2d} train {np.mean(losses):.4f} mAP {mean_ap:.4f}")
