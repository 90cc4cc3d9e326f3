import torch
from sklearn.datasets import make_blobs

torch.manual_seed(0)
points, _ = make_blobs(3000, centers=[[-1, -1], [1, -1], [0, 1]], cluster_std=0.2, random_state=1)
points = torch.from_numpy(points).float()


def mlp(i, o, act):
    return torch.nn.Sequential(torch.nn.Linear(i, 48), act(), torch.nn.Linear(48, 48), act(), torch.nn.Linear(48, o))


gen, critic = mlp(6, 2, torch.nn.ReLU), mlp(2, 1, torch.nn.LeakyReLU)
g_opt = torch.optim.Adam(gen.parameters(), 2e-3, betas=(0.5, 0.9))
c_opt = torch.optim.Adam(critic.parameters(), 3e-3, betas=(0.5, 0.9))


def penalty(real, fake):
    mix = torch.rand(len(real), 1)
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    grad, = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((grad.norm(dim=1) - 1) ** 2).mean()


def mmd(a, b):
    def k(x, y):
        return torch.exp(-torch.cdist(x, y) ** 2 / 0.5).mean()
    return k(a, a) + k(b, b) - 2 * k(a, b)


for i in range(500):
    for _ in range(3):
        real = points[torch.randint(len(points), (64,))]
        fake = gen(torch.randn(64, 6)).detach()
        c_loss = critic(fake).mean() - critic(real).mean() + 1 * penalty(real, fake)
        c_opt.zero_grad(); c_loss.backward(); c_opt.step()
    g_loss = -critic(gen(torch.randn(64, 6))).mean()
    g_opt.zero_grad(); g_loss.backward(); g_opt.step()
    if (i + 1) % 100 == 0:
        with torch.no_grad():
            print(i + 1, 'critic', c_loss.item(), 'mmd', mmd(gen(torch.randn(1000, 6)), points[:1000]).item())
