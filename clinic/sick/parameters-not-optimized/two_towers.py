"""Match noisy views of the same object with two towers and a contrastive loss."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Tower(nn.Module):
    def __init__(self, dim_in, dim_out=16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim_in, 64), nn.GELU(), nn.Linear(64, dim_out))

    def forward(self, x):
        return F.normalize(self.net(x), dim=-1)


class ContrastiveLoss(nn.Module):
    """InfoNCE in both directions, with a learnable scale."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, a, b):
        logits = self.log_scale.exp() * a @ b.t()
        target = torch.arange(len(a))
        return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target))


torch.manual_seed(3)
latent_dim = 10
view_a = torch.randn(latent_dim, 30) / latent_dim**0.5
view_b = torch.randn(latent_dim, 20) / latent_dim**0.5


def sample(n):
    z = torch.randn(n, latent_dim)
    return (
        torch.tanh(z @ view_a) + 0.2 * torch.randn(n, 30),
        torch.tanh(z @ view_b) + 0.2 * torch.randn(n, 20),
    )


image_tower, text_tower = Tower(30), Tower(20)
criterion = ContrastiveLoss()
model = nn.ModuleDict({"image": image_tower, "text": text_tower})
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
val_a, val_b = sample(500)

for step in range(1, 501):
    a, b = sample(128)
    loss = criterion(image_tower(a), text_tower(b))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        with torch.no_grad():
            emb_a, emb_b = image_tower(val_a), text_tower(val_b)
            recall = ((emb_a @ emb_b.t()).argmax(1) == torch.arange(500)).float().mean()
            val_loss = criterion(emb_a, emb_b)
        print(f"step {step} loss {loss.item():.3f} val_loss {val_loss.item():.3f} recall@1 {recall.item():.3f}")
