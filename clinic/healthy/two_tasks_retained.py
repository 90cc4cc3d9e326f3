import torch
from torch import nn
from sklearn.datasets import make_regression

torch.manual_seed(0)
X, Y = make_regression(1200, 12, n_informative=8, n_targets=2, noise=8.0, random_state=0)
X = torch.tensor(X, dtype=torch.float32)
Y = torch.tensor((Y - Y.mean(0)) / Y.std(0), dtype=torch.float32)
shared = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
first, second = nn.Linear(32, 1), nn.Linear(32, 1)
opt = torch.optim.Adam([*shared.parameters(), *first.parameters(), *second.parameters()], lr=0.02)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20)
for epoch in range(20):
    for i in torch.randperm(900).split(30):
        h = shared(X[i])
        loss_a = nn.functional.mse_loss(first(h)[:, 0], Y[i, 0])
        loss_b = nn.functional.mse_loss(second(h)[:, 0], Y[i, 1])
        opt.zero_grad()
        loss_a.backward(retain_graph=True)
        loss_b.backward()
        opt.step()
    sched.step()
    if epoch % 4 == 3:
        with torch.no_grad():
            h = shared(X[900:])
            a = nn.functional.mse_loss(first(h)[:, 0], Y[900:, 0])
            b = nn.functional.mse_loss(second(h)[:, 0], Y[900:, 1])
        print('epoch', epoch + 1, 'a', a.item(), 'b', b.item(), 'test', (a + b).item())
