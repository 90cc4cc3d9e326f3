import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

torch.manual_seed(13)
x, y = load_diabetes(return_X_y=True)
x_tr, x_te, y_tr, y_te = train_test_split(x / x.std(0), y, test_size=0.3, random_state=13)
m, s = y_tr.mean(), y_tr.std()
to = lambda a: torch.tensor(a, dtype=torch.float32)
x_tr, x_te, y_tr, y_te = to(x_tr), to(x_te), to((y_tr - m) / s), to((y_te - m) / s)
w = torch.nn.Linear(10, 1)
opt = torch.optim.SGD(w.parameters(), lr=0.03)
for epoch in range(30):
    for g in opt.param_groups:
        g['lr'] = 0.03 * 0.9 ** epoch
    for k in torch.randperm(len(x_tr)).split(16):
        loss = (w(x_tr[k])[:, 0] - y_tr[k]).pow(2).mean() + 0.01 * w.weight.pow(2).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if epoch % 3 == 2:
        with torch.no_grad():
            print(f'{epoch + 1}: train mse {(w(x_tr)[:, 0] - y_tr).pow(2).mean():.4f} test mse {(w(x_te)[:, 0] - y_te).pow(2).mean():.4f}')
