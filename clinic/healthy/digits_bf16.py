import torch
from torch import nn
from sklearn.datasets import load_digits

torch.manual_seed(0)
bunch = load_digits()
X = torch.tensor(bunch.data, dtype=torch.float32).sub(5).div(6)
Y = torch.tensor(bunch.target)
shuffled = torch.randperm(len(X))
X, Y = X[shuffled], Y[shuffled]
Xt, Yt, Xv, Yv = X[:1500], Y[:1500], X[1500:], Y[1500:]

net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
opt = torch.optim.AdamW(net.parameters(), lr=8e-3, weight_decay=0.05)
sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.05, total_iters=6 * 24)
for epoch in range(6):
    for batch in torch.randperm(1500).split(64):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            logits = net(Xt[batch])
            loss = nn.functional.cross_entropy(logits.float(), Yt[batch])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        sched.step()
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        out = net(Xv).float()
    print(f'[{epoch}] loss {loss.item():.4f} val loss {nn.functional.cross_entropy(out, Yv).item():.4f} acc {(out.argmax(1) == Yv).float().mean().item():.3f}')
