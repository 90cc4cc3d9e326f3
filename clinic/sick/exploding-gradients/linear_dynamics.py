# Identify a rotating, slowly damped linear system from trajectories by rolling the model out.
import numpy as np
import torch

rng = np.random.default_rng(0)
DIM, STEPS = 4, 40

angle = np.array([0.03, 0.08])
A_true = np.zeros((DIM, DIM))
for k, a in enumerate(angle):
    A_true[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = 0.995 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
A_true = torch.tensor(A_true)

A = torch.tensor(1.06 * np.eye(DIM) + 0.05 * rng.standard_normal((DIM, DIM)), requires_grad=True)
optimizer = torch.optim.SGD([A], lr=1e-2)


def rollout(matrix, x0):
    states, x = [], x0
    for _ in range(STEPS):
        x = x @ matrix.T
        states.append(x)
    return torch.stack(states)


for it in range(400):
    x0 = torch.tensor(rng.standard_normal((16, DIM)))
    with torch.no_grad():
        target = rollout(A_true, x0)
    loss = (rollout(A, x0) - target).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 20 == 19:
        print(f"iteration {it + 1} loss {loss.item():.4g} error {(A - A_true).norm().item():.4f}")
