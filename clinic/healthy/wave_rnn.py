import math
import torch, torch.nn as nn

t = torch.arange(0, 2400).float()
signal = torch.sin(2 * math.pi * t / 25) + 0.5 * torch.sin(2 * math.pi * t / 60 + 1)
signal = signal + 0.1 * torch.randn(len(t))
signal = signal / signal.std()
windows = signal.unfold(0, 33, 4)
train, val = windows[:480], windows[490:]

rnn = nn.RNN(1, 32, batch_first=True)
head = nn.Linear(32, 1)
params = list(rnn.parameters()) + list(head.parameters())
optim = torch.optim.RMSprop(params, lr=1e-3)
mse = nn.MSELoss()


def predict(batch):
    h, _ = rnn(batch[:, :-1, None])
    return head(h)[..., 0]


for epoch in range(40):
    if epoch == 25:
        for group in optim.param_groups:
            group['lr'] *= 0.2
    order = torch.randperm(len(train))
    total = 0.
    for chunk in order.chunk(15):
        batch = train[chunk]
        optim.zero_grad(set_to_none=True)
        loss = mse(predict(batch)[:, 4:], batch[:, 5:])
        loss.backward()
        nn.utils.clip_grad_norm_(params, 5.)
        optim.step()
        total += loss.item()
    with torch.no_grad():
        v = mse(predict(val)[:, 4:], val[:, 5:])
    if epoch % 5 == 4: print('epoch', epoch, 'train', total / 15, 'val', v.item())
