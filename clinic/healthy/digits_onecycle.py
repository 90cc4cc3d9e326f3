import logging
import torch
from sklearn.datasets import load_digits

logging.basicConfig(format="%(message)s", level=logging.INFO, stream=__import__("sys").stdout)
log = logging.getLogger(__name__)

data = load_digits()
inputs = torch.from_numpy(data.data).float().div_(16).sub_(0.3)
labels = torch.from_numpy(data.target)
gen = torch.Generator().manual_seed(7)
train_idx, valid_idx = torch.randperm(1797, generator=gen).split([1500, 297])

model = torch.nn.Sequential()
model.add_module("fc1", torch.nn.Linear(64, 100))
model.add_module("act1", torch.nn.ReLU())
model.add_module("fc2", torch.nn.Linear(100, 10))
EPOCHS, BS = 12, 50
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.95)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, epochs=EPOCHS, steps_per_epoch=1500 // BS)
loss_func = torch.nn.CrossEntropyLoss()
for epoch in range(EPOCHS):
    for chosen in train_idx[torch.randperm(1500, generator=gen)].view(-1, BS):
        loss = loss_func(model(inputs[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    with torch.inference_mode():
        valid = loss_func(model(inputs[valid_idx]), labels[valid_idx])
    log.info("epoch=%d lr=%.4f loss=%.4f valid_loss=%.4f", epoch, scheduler.get_last_lr()[0], loss, valid)
