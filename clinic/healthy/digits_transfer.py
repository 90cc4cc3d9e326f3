import torch
from torch import nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

torch.manual_seed(77)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16 - 0.3).float()
labels = torch.tensor(labels)
idx_train, idx_test = map(torch.tensor, train_test_split(range(len(labels)), test_size=0.2, random_state=7))


def train(model, params, lr, targets, epochs):
    optimizer = torch.optim.Adam(params, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        for b in idx_train[torch.randperm(len(idx_train))].split(64):
            optimizer.zero_grad()
            loss = loss_fn(model(images[b]), targets[b])
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            right = (model(images[idx_test]).argmax(1) == targets[idx_test]).float().mean().item()
        print(f"  epoch {epoch + 1}: loss {loss.item():.4f} test {right:.4f}")
    return right


body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
print("pretraining")
full = nn.Sequential(body, nn.Linear(32, 10))
train(full, full.parameters(), 5e-3, labels, 8)

print("transfer to parity")
for p in body.parameters():
    p.requires_grad = False
head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))
score = train(nn.Sequential(body, head), head.parameters(), 0.015, labels % 2, 8)
print(f"parity accuracy {score:.4f}")
