import torch
from torch import nn
from torch.autograd import Function
from sklearn.datasets import load_digits


class Sign(Function):
    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return torch.where(w >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (w,) = ctx.saved_tensors
        return grad * (w.abs() <= 1).float()


class BinaryLinear(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-0.3, 0.3))
        self.scale = nn.Parameter(torch.full((n_out,), n_in ** -0.5))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return torch.nn.functional.linear(x, Sign.apply(self.weight)) * self.scale + self.bias


torch.manual_seed(19)
X, y = load_digits(return_X_y=True)
X = torch.tensor((X - X.mean()) / X.std(), dtype=torch.float32)
y = torch.tensor(y)
net = nn.Sequential(BinaryLinear(64, 96), nn.Hardtanh(-2, 2), BinaryLinear(96, 10))
opt = torch.optim.Adam(net.parameters(), lr=0.012)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 15)
for epoch in range(15):
    for rows in torch.randperm(1400).split(50):
        loss = nn.functional.cross_entropy(net(X[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for m in (net[0], net[2]):
                m.weight.clamp_(-1, 1)
    sched.step()
    with torch.no_grad():
        out = net(X[1400:])
    print("epoch", epoch + 1, "loss", loss.item(), "accuracy", (out.argmax(1) == y[1400:]).float().mean().item())
