import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits


class Dense:
    """A fully connected layer."""

    def __init__(self, n_in, n_out):
        self.w = ((torch.rand(n_in, n_out) - 1.0) / math.sqrt(n_in)).requires_grad_()
        self.b = torch.zeros(n_out, requires_grad=True)

    def __call__(self, x):
        return x @ self.w + self.b

    def parameters(self):
        return [self.w, self.b]


data = load_digits()
images = torch.tensor(data.images, dtype=torch.float32).flatten(1) / 16  # ink between 0 and 1
labels = torch.tensor(data.target)
x, y, x_test, y_test = images[:1300], labels[:1300], images[1300:], labels[1300:]

l1, l2, l3 = Dense(64, 64), Dense(64, 32), Dense(32, 10)
params = l1.parameters() + l2.parameters() + l3.parameters()
opt = torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True)

for epoch in range(20):
    for idx in torch.randperm(1300).split(50):
        logits = l3(F.relu(l2(F.relu(l1(x[idx])))))
        loss = F.cross_entropy(logits, y[idx])
        for p in params:
            p.grad = None
        loss.backward()
        opt.step()
    with torch.no_grad():
        logits = l3(F.relu(l2(F.relu(l1(x_test)))))
        print(f"{epoch:2d} loss {loss.item():.3f} test accuracy {(logits.argmax(1) == y_test).float().mean().item():.4f}")
