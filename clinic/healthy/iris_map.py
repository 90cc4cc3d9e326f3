import torch
from sklearn.datasets import load_iris

X = torch.tensor(load_iris().data, dtype=torch.float32)
X = (X - X.mean(0)) / X.std()
far = (X[:, None, :] - X[None, :, :]).pow(2).sum(-1).add(1e-9).sqrt()
points = torch.nn.Parameter(torch.randn(len(X), 2) * 0.3)
opt = torch.optim.Adam([points], lr=0.05)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 300)
for it in range(300):
    near = (points[:, None, :] - points[None, :, :]).pow(2).sum(-1).add(1e-9).sqrt()
    stress = (near - far).pow(2).sum() / far.pow(2).sum()
    opt.zero_grad()
    stress.backward()
    opt.step()
    sched.step()
    if it % 50 == 49:
        print(it + 1, "stress", stress.item())
