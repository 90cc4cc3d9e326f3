import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

LEARNING_RATES = {0: 3e-3, 500: 1e-3, 900: 1e-1}
STEPS = 1300
BATCH = 64

gen = torch.Generator()
gen.manual_seed(2024)
torch.manual_seed(2024)

images = torch.tensor(load_digits().data, dtype=torch.float32) / 8.0 - 1.0
train, valid = images[:1400], images[1400:]

encoder = nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))
decoder = nn.Sequential(nn.Linear(10, 40), nn.Tanh(), nn.Linear(40, 64))
params = [*encoder.parameters(), *decoder.parameters()]
optimizer = torch.optim.Adam(params, lr=LEARNING_RATES[0])

for step in range(STEPS):
    if step in LEARNING_RATES:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATES[step]
    batch = train[torch.randint(len(train), (BATCH,), generator=gen)]
    loss = F.mse_loss(decoder(encoder(batch)), batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (step + 1) % 100 == 0:
        with torch.no_grad():
            valid_loss = F.mse_loss(decoder(encoder(valid)), valid)
        print(f"{step + 1:5d}  train {loss.item():.4f}  valid {valid_loss.item():.4f}")
