import torch
from sklearn.datasets import load_digits

torch.manual_seed(2)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X).float() / 16 - 0.3, torch.tensor(y)
mix = torch.randperm(len(X))
X, y, X_test, y_test = X[mix[:1400]], y[mix[:1400]], X[mix[1400:]], y[mix[1400:]]
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=0.015)
stages = [(y < 5, 0.0, 5), (y >= 0, 0.0, 7), (y >= 0, 0.25, 8)]
epoch = 0
for chosen, noise, length in stages:
    rows = chosen.nonzero()[:, 0]
    for _ in range(length):
        for i in rows[torch.randperm(len(rows))].split(50):
            x = X[i] + noise * torch.randn_like(X[i])
            loss = torch.nn.functional.cross_entropy(net(x), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        epoch += 1
    for g in opt.param_groups:
        g['lr'] *= 0.5
    with torch.no_grad():
        print(f'after epoch {epoch}: loss {loss.item():.4f}, test loss {torch.nn.functional.cross_entropy(net(X_test), y_test).item():.4f}')
