import torch
from sklearn import datasets

RATE = 0.5
wine = datasets.load_wine()
x = torch.tensor(wine.data, dtype=torch.double)
x = (x - x.mean(0)) / x.std(0)
t = torch.tensor(wine.target)
model = torch.nn.Linear(13, 3).double()
opt = torch.optim.SGD(model.parameters(), lr=RATE)
step = 0
for epoch in range(30):
    total = 0
    for batch in torch.randperm(178).split(20):
        for g in opt.param_groups:
            g['lr'] = RATE / (1 + step / 60)
        l = torch.nn.functional.cross_entropy(model(x[batch]), t[batch])
        l = l + 0.005 * (model.weight ** 2).sum()
        opt.zero_grad(); l.backward(); opt.step()
        step += 1
    with torch.no_grad():
        whole = torch.nn.functional.cross_entropy(model(x), t) + 0.005 * (model.weight ** 2).sum()
    if epoch % 5 == 4: print('epoch', epoch, 'loss', whole.item())
