import torch
import torch.nn as nn
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

PRIOR = 0.05


class Detector(nn.Module):
    def __init__(self, n_in, width=48):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )
        # start from the prior of the rare class
        bias = -torch.log(torch.tensor((1 - PRIOR) / PRIOR))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1.0)
                nn.init.constant_(layer.bias, bias.item())

    def forward(self, x):
        return self.layers(x).squeeze(1)


X, y = make_classification(
    n_samples=6000, n_features=12, n_informative=8, n_clusters_per_class=3, weights=[1 - PRIOR], flip_y=0.0,
    class_sep=1.5, random_state=4,
)
X = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
X_train, y_train, X_val, y_val = X[:4500], y[:4500], X[4500:], y[4500:]

model = Detector(12)
loss_fn = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(12):
    for idx in torch.randperm(len(X_train)).split(64):
        loss = loss_fn(model(X_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        val = model(X_val)
    ap = average_precision_score(y_val.numpy(), val.numpy())
    print(f"epoch {epoch + 1} val loss {loss_fn(val, y_val).item():.4f} average precision {ap:.4f}")
