import torch
from sklearn.datasets import load_digits

torch.manual_seed(0)


class Probabilistic(torch.nn.Module):
    """Returns probabilities."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.hidden = torch.nn.Linear(n_in, 48)
        self.out = torch.nn.Linear(48, n_out)

    def forward(self, x):
        return torch.softmax(self.out(torch.relu(self.hidden(x))), dim=1)


X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X, dtype=torch.float32) / 16 - 0.3, torch.tensor(y)
index = torch.randperm(len(y))
train, test = index[:1400], index[1400:]
model = Probabilistic(64, 10)
nll = torch.nn.NLLLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.75)
for epoch in range(10):
    for rows in train[torch.randperm(1400)].split(50):
        p = model(X[rows])
        loss = nll(torch.log(p + 1e-8), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decay.step()
    with torch.no_grad():
        print(f"epoch {epoch}, nll {loss.item():.4f}, test nll {nll(torch.log(model(X[test]) + 1e-8), y[test]).item():.4f}")
