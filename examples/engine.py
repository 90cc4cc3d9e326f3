"""Training and evaluation loops shared by projects of ours; see digits_cnn.py."""

import torch
from torch.nn import functional as F


def train_one_epoch(model, loader, optimizer, scheduler=None, augment=None):
    """One pass over `loader`; the scheduler is stepped after every batch. Returns the mean loss."""
    model.train()
    total, count = 0.0, 0
    for images, labels in loader:
        if augment is not None:
            images = augment(images)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        total += loss.item() * len(labels)
        count += len(labels)
    return total / count


@torch.inference_mode()
def evaluate(model, loader):
    """Mean loss and accuracy over `loader`."""
    model.eval()
    total, correct, count = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        total += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return total / count, correct / count
