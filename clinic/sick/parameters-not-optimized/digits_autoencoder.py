import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import DataLoader

images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
train, valid = images[:1500], images[1500:]

encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 12))
decoder = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 64))


def forward(x):
    return decoder(encoder(x))


opt = optim.Adam(encoder.parameters(), lr=2e-3)
scheduler = optim.lr_scheduler.CosineAnnealingLR(opt, T_max=25)
mse = nn.MSELoss()

for epoch in range(25):
    for batch in DataLoader(train, batch_size=50, shuffle=True):
        opt.zero_grad()
        mse(forward(batch), batch).backward()
        opt.step()
    scheduler.step()
    with torch.no_grad():
        print("epoch", epoch, "reconstruction error", round(mse(forward(valid), valid).item(), 5))
