import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# forecast the next value of a noisy oscillator from what was measured before
N_LAGS = 1


def windows(series, n_lags):
    xs = np.stack([series[:, i : series.shape[1] - n_lags + i] for i in range(n_lags)], axis=-1)
    ys = series[:, n_lags:]
    return xs.reshape(-1, n_lags), ys.reshape(-1, 1)


def oscillators(n, length, rng):
    phase = rng.uniform(0, 2 * np.pi, size=(n, 1))
    t = np.arange(length)
    return np.sqrt(2) * np.sin(0.9 * t + phase) + 0.03 * rng.standard_normal((n, length))


rng = np.random.default_rng(6)
X, Y = windows(oscillators(60, 60, rng), N_LAGS)
X_val, Y_val = windows(oscillators(20, 60, rng), N_LAGS)
to_tensor = lambda a: torch.tensor(a, dtype=torch.float32)
loader = DataLoader(TensorDataset(to_tensor(X), to_tensor(Y)), batch_size=64, shuffle=True)
X_val, Y_val = to_tensor(X_val), to_tensor(Y_val)

model = nn.Sequential(nn.Linear(N_LAGS, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
mse = nn.MSELoss()

for epoch in range(12):
    train = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = mse(model(x), y)
        loss.backward()
        optimizer.step()
        train.append(loss.item())
    with torch.no_grad():
        val = mse(model(X_val), Y_val).item()
    print(f"epoch {epoch + 1} train {np.mean(train):.4f} validation {val:.4f}")
