import torch
import torch.nn.functional as F

torch.manual_seed(6)
INNER = 0.05
sizes = [1, 40, 40, 1]
params = []
for a, b in zip(sizes, sizes[1:]):
    params += [torch.nn.Parameter(torch.randn(b, a) / a ** 0.5), torch.nn.Parameter(torch.zeros(b))]


def net(x, p):
    for k in range(0, 4, 2):
        x = torch.tanh(x @ p[k].transpose(-1, -2) + p[k + 1].unsqueeze(-2))
    return x @ p[4].transpose(-1, -2) + p[5].unsqueeze(-2)


def tasks(n, k):
    amp, phase = 0.5 + torch.rand(n, 1, 1), 3.14 * torch.rand(n, 1, 1)
    x = torch.rand(n, 2 * k, 1) * 4 - 2
    y = amp * torch.sin(1.5 * x + phase)
    return x[:, :k], y[:, :k], x[:, k:], y[:, k:]


def adapt(x, y, steps=2):
    fast = [p.unsqueeze(0).expand(len(x), *p.shape) for p in params]
    for _ in range(steps):
        inner = F.mse_loss(net(x, fast), y, reduction='none').mean((1, 2)).sum()
        grads = torch.autograd.grad(inner, fast, create_graph=True)
        fast = [w - INNER * g for w, g in zip(fast, grads)]
    return fast


meta = torch.optim.Adam(params, lr=0.01)
cosine = torch.optim.lr_scheduler.CosineAnnealingLR(meta, 700)
recent = []
for it in range(700):
    xs, ys, xq, yq = tasks(16, 8)
    loss = F.mse_loss(net(xq, adapt(xs, ys)), yq)
    meta.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 5.0)
    meta.step()
    cosine.step()
    recent.append(loss.item())
    if it % 100 == 99:
        print(f"iteration {it + 1} after adaptation {sum(recent[-100:]) / 100:.4f}")
