import torch as th
from sklearn.datasets import load_iris

data = load_iris()
feats = th.tensor(data.data, dtype=th.float64)
feats = (feats - feats.mean(0)) / feats.std(0)
target = th.tensor(data.target)
linear = th.nn.Linear(4, 3, dtype=th.float64)
opt = th.optim.SGD(linear.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-3)
for it in range(300):
    loss = th.nn.functional.cross_entropy(linear(feats), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 50 == 49:
        print(f"iter {it + 1} loss {loss.item():.6f}")
