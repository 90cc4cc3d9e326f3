import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold

X, y = load_digits(return_X_y=True)
X = (X / 16.0).astype(np.float32)
scores = []
for fold, (train, test) in enumerate(KFold(4, shuffle=True, random_state=0).split(X)):
    torch.manual_seed(fold)
    mean = X[train].mean()
    xt, yt = torch.from_numpy(X[train] - mean), torch.from_numpy(y[train])
    xv, yv = torch.from_numpy(X[test] - mean), torch.from_numpy(y[test])
    model = torch.nn.Sequential(torch.nn.Linear(64, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(7):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - epoch / 7)
        for batch in torch.randperm(len(xt)).split(50):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(xt[batch]), yt[batch])
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        out = model(xv)
        scores.append((out.argmax(1) == yv).float().mean().item())
        print(f"fold {fold}: loss {loss.item():.4f}, val loss {torch.nn.functional.cross_entropy(out, yv).item():.4f}, accuracy {scores[-1]:.4f}")
print("mean accuracy", np.mean(scores))
