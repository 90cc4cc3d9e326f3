import torch
from sklearn.datasets import load_breast_cancer
from torch.utils.data import DataLoader, Dataset


class Tumours(Dataset):
    def __init__(self, rows, mean, std):
        data = load_breast_cancer()
        self.x = (torch.tensor(data.data[rows], dtype=torch.float32) - mean) / std
        self.y = torch.tensor(data.target[rows], dtype=torch.float32)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


generator = torch.Generator().manual_seed(0)
rows = torch.randperm(569, generator=generator).numpy()
raw = torch.tensor(load_breast_cancer().data[rows[:420]], dtype=torch.float32)
train, valid = (Tumours(part, raw.mean(0), raw.std(0)) for part in (rows[:420], rows[420:]))
train_loader = DataLoader(train, batch_size=32, shuffle=True)
valid_loader = DataLoader(valid, batch_size=149)

model = torch.nn.Sequential(
    torch.nn.Linear(30, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3),
    torch.nn.Linear(32, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3),
    torch.nn.Linear(16, 1),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
loss_fn = torch.nn.BCEWithLogitsLoss()
for epoch in range(8):
    model.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x)[:, 0], y)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        (x, y), = valid_loader
        v = loss_fn(model(x)[:, 0], y)
    print(f"{epoch:3d}: train {loss.item():.4f}, valid {v.item():.4f}")
