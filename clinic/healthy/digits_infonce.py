import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(3)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images).float() / 16
labels = torch.tensor(labels)


def augment(x):
    shift = torch.randint(-1, 2, (2,))
    x = x.view(-1, 8, 8).roll(tuple(shift.tolist()), (1, 2)).flatten(1)
    return x + 0.15 * torch.randn_like(x)


encoder = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 24))
optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3, weight_decay=1e-2)
total = 15 * 12
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
target = torch.arange(128)
for epoch in range(15):
    for rows in torch.randperm(len(images))[:1536].view(-1, 128):
        a, b = (F.normalize(encoder(augment(images[rows])), dim=1) for _ in range(2))
        logits = a @ b.t() / 0.2
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            z = F.normalize(encoder(images), dim=1)
            near = (z[1200:] @ z[:1200].t()).topk(5).indices
            votes = F.one_hot(labels[near], 10).sum(1).argmax(1)
            print(f"epoch {epoch + 1} loss {loss.item():.4f} knn accuracy {(votes == labels[1200:]).float().mean().item():.4f}")
