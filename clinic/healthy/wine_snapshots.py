import copy
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

torch.manual_seed(10)
X, y = load_wine(return_X_y=True)
X = torch.tensor(scale(X), dtype=torch.float32)
y = torch.tensor(y)
order = torch.randperm(len(X))
X, y = X[order], y[order]
Xa, ya, Xb, yb = X[:120], y[:120], X[120:], y[120:]
net = torch.nn.Sequential(torch.nn.Linear(13, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
sgd = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
cycle = 10 * 8
sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(sgd, T_0=cycle, T_mult=1, eta_min=1e-4)
snapshots = []
step = 0
for epoch in range(40):
    for rows in torch.randperm(120).split(15):
        loss = torch.nn.functional.cross_entropy(net(Xa[rows]), ya[rows])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        step += 1
        sched.step()
    if step % cycle == 0:
        snapshots.append(copy.deepcopy(net).eval())
        with torch.no_grad():
            p = torch.stack([s(Xb).softmax(1) for s in snapshots]).mean(0)
        print(f"cycle {len(snapshots)}: last loss {loss.item():.4f}, ensemble loss {torch.nn.functional.nll_loss(p.log(), yb).item():.4f}")
