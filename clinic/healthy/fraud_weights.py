import torch
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

X, y = make_classification(6000, 15, n_informative=6, weights=[0.96], class_sep=1.3, flip_y=0.005, random_state=4)
X = (X - X.mean(0)) / X.std(0)
Xa, Xb, ya, yb = (torch.tensor(v, dtype=torch.float32) for v in train_test_split(X, y, stratify=y, random_state=4, test_size=0.3))
pos_weight = ((ya == 0).sum() / (ya == 1).sum()).sqrt()
print("positive weight", round(pos_weight.item(), 2))
loader = DataLoader(TensorDataset(Xa, ya), batch_size=128, shuffle=True)
net = torch.nn.Sequential(torch.nn.Linear(15, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
criterion = torch.nn.BCEWithLogitsLoss(pos_weight=pos_weight)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
for epoch in range(10):
    for x, t in loader:
        loss = criterion(net(x).squeeze(-1), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    with torch.no_grad():
        out = net(Xb).squeeze(-1)
    print(f"epoch {epoch} val loss {criterion(out, yb).item():.4f} balanced accuracy {balanced_accuracy_score(yb, out > 0):.4f}")
