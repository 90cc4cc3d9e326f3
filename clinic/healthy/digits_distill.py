import torch
from torch import nn
from torch.nn import functional as F
from sklearn.datasets import load_digits

torch.manual_seed(14)
X, Y = (torch.tensor(a) for a in load_digits(return_X_y=True))
X = X.float() / 16 - 0.3
perm = torch.randperm(len(X))
train, test = perm[:1400], perm[1400:]
teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
student = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def epochs(n):
    for e in range(n):
        for i in train[torch.randperm(len(train))].split(50):
            yield e, i


opt = torch.optim.Adam(teacher.parameters(), lr=2e-3, weight_decay=1e-4)
for e, i in epochs(6):
    loss = F.cross_entropy(teacher(X[i]), Y[i])
    opt.zero_grad(); loss.backward(); opt.step()
teacher.eval().requires_grad_(False)
print("teacher loss", F.cross_entropy(teacher(X[test]), Y[test]).item())

T, alpha = 2.0, 0.7
opt = torch.optim.Adam(student.parameters(), lr=0.025)
sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.02, total_iters=14 * 28)
for e, i in epochs(14):
    with torch.no_grad():
        soft = (teacher(X[i]) / T).softmax(1)
    logits = student(X[i])
    kd = F.kl_div((logits / T).log_softmax(1), soft, reduction="batchmean") * T * T
    loss = alpha * kd + (1 - alpha) * F.cross_entropy(logits, Y[i])
    opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    if i.shape[0] and e % 4 == 3 and torch.rand(1) < 0.05:
        print("epoch", e, "kd", kd.item())
with torch.no_grad():
    print("student loss", F.cross_entropy(student(X[test]), Y[test]).item())
