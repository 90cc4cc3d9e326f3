import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from sklearn.datasets import load_wine

LR = 0.5
torch.manual_seed(0)
X, y = load_wine(return_X_y=True)
X = torch.tensor((X - X.mean(0)) / X.std(0)).float()
y = torch.tensor(y)
perm = torch.randperm(len(y))
X, y = X[perm], y[perm]


def make():
    return nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))


models = [make() for _ in range(4)]
params, buffers = stack_module_state(models)
params = {k: v.detach() for k, v in params.items()}
skeleton = make().to("meta")


def loss_fn(p, b, x, t):
    decay = sum(w.square().sum() for k, w in p.items() if k.endswith("weight"))
    return nn.functional.cross_entropy(functional_call(skeleton, (p, b), (x,)), t) + 2e-3 * decay


step = vmap(grad_and_value(loss_fn), in_dims=(0, 0, 0, 0))
for it in range(400):
    rows = torch.randint(0, 130, (4, 32))
    grads, losses = step(params, buffers, X[rows], y[rows])
    lr = LR * (1 - it / 400)
    params = {k: v - lr * grads[k] for k, v in params.items()}
    if it % 50 == 49:
        logits = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)), in_dims=(0, 0, None))(params, buffers, X[130:])
        prob = logits.softmax(-1).mean(0)
        print(it + 1, 'losses', [round(v, 4) for v in losses.tolist()], 'ensemble loss', nn.functional.nll_loss(prob.log(), y[130:]).item())
