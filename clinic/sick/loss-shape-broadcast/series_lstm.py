# One-step-ahead forecast of a noisy sum of sines with an LSTM.
import numpy as np
import torch

torch.set_default_dtype(torch.float64)
np.random.seed(0)
torch.manual_seed(0)

t = np.arange(1400) * 0.1
series = np.sin(t) + 0.5 * np.sin(2.3 * t + 1) + 0.1 * np.random.randn(len(t))
series = (series - series.mean()) / series.std()

window = 16
inputs = np.stack([series[i : i + window] for i in range(len(series) - window)])
targets = series[window:]
inputs = torch.from_numpy(inputs).unsqueeze(-1)
targets = torch.from_numpy(targets)
split = 1100


class Forecaster(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(1, 20, batch_first=True)
        self.linear = torch.nn.Linear(20, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.linear(out[:, -1])


def mse(pred, target):
    return ((pred - target) ** 2).mean()


net = Forecaster()
optim = torch.optim.RMSprop(net.parameters(), lr=4e-3)
for epoch in range(12):
    perm = np.random.permutation(split)
    for i in range(0, split, 50):
        idx = perm[i : i + 50]
        optim.zero_grad()
        loss = mse(net(inputs[idx]), targets[idx])
        loss.backward()
        optim.step()
    with torch.no_grad():
        forecast = net(inputs[split:]).numpy()[:, 0]
    mae = np.abs(forecast - targets[split:].numpy()).mean()
    print("epoch %d  loss %.4f  mae %.4f" % (epoch, loss.item(), mae))
