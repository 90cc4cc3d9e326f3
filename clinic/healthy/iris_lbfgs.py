import torch
from sklearn.datasets import load_iris

X, y = load_iris(return_X_y=True)
X = torch.tensor((X - X.mean(0)) / X.std(0))
y = torch.tensor(y)
W = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
lbfgs = torch.optim.LBFGS([W, b], lr=1, max_iter=5, line_search_fn="strong_wolfe")


def closure():
    lbfgs.zero_grad()
    objective = torch.nn.functional.cross_entropy(X @ W + b, y) + 1e-3 * W.square().sum()
    objective.backward()
    return objective


for outer in range(30):
    value = lbfgs.step(closure)
    if outer % 5 == 4:
        print(outer + 1, "objective", value.item(), "gradient", W.grad.norm().item())
accuracy = ((X @ W + b).argmax(1) == y).double().mean()
print("accuracy", accuracy.item())
