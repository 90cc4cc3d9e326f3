import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

ACCUMULATE = 4
digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
x_train, x_test = (torch.tensor(a, dtype=torch.float32) for a in (x_train, x_test))
y_train, y_test = torch.tensor(y_train), torch.tensor(y_test)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=16, shuffle=True, drop_last=True)

model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=6, gamma=0.2)
criterion = torch.nn.CrossEntropyLoss()

for epoch in range(14):
    model.train()
    for i, (xb, yb) in enumerate(loader):
        loss = criterion(model(xb), yb) / ACCUMULATE
        loss.backward()
        if (i + 1) % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
    optimizer.zero_grad()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        out = model(x_test)
        print(f"epoch {epoch + 1} test loss {criterion(out, y_test):.4f} accuracy {(out.argmax(1) == y_test).float().mean():.4f}")
