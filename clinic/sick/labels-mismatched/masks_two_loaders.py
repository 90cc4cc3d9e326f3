"""Segment bright discs: images and masks come from two loaders."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

SIZE = 16


def discs(n):
    grid = torch.arange(SIZE).float()
    cx, cy = 3 + 10 * torch.rand(n, 1, 1), 3 + 10 * torch.rand(n, 1, 1)
    radius = 2 + 2 * torch.rand(n, 1, 1)
    mask = ((grid[None, :, None] - cy) ** 2 + (grid[None, None, :] - cx) ** 2 < radius**2).float()
    image = 1.5 * mask + 0.8 * torch.randn(n, SIZE, SIZE)
    image = (image - image.mean()) / image.std()
    return image.unsqueeze(1), mask.unsqueeze(1)


class UNetish(nn.Module):
    def __init__(self, ch=8):
        super().__init__()
        self.c1 = nn.Conv2d(1, ch, 3, padding=1)
        self.c2 = nn.Conv2d(ch, ch, 3, padding=1)
        self.c3 = nn.Conv2d(ch, ch, 3, padding=1)
        self.out = nn.Conv2d(2 * ch, 1, 1)

    def forward(self, x):
        a = F.relu(self.c1(x))
        b = F.relu(self.c2(F.max_pool2d(a, 2)))
        b = F.interpolate(F.relu(self.c3(b)), scale_factor=2)
        return self.out(torch.cat([a, b], dim=1))


def dice(logits, mask):
    pred = (logits > 0).float()
    return (2 * (pred * mask).sum() / (pred.sum() + mask.sum() + 1e-6)).item()


def main():
    torch.manual_seed(17)
    images, masks = discs(480)
    val_images, val_masks = discs(120)
    image_loader = DataLoader(images, batch_size=24, shuffle=True)
    mask_loader = DataLoader(masks, batch_size=24, shuffle=True)

    net = UNetish()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for epoch in range(10):
        for image, mask in zip(image_loader, mask_loader):
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(net(image), mask)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            score = dice(net(val_images), val_masks)
        print(f"epoch {epoch} loss {loss.item():.4f} dice {score:.4f}")


if __name__ == "__main__":
    main()
