import torch
from sklearn.datasets import make_friedman1
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(123)

X, y = make_friedman1(n_samples=1500, noise=0.5, random_state=9)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=9)
x_scaler = StandardScaler().fit(X_train)
y_mean, y_std = y_train.mean(), y_train.std()


def to_tensors(features, targets):
    return (
        torch.tensor(x_scaler.transform(features), dtype=torch.float32),
        torch.tensor((targets - y_mean) / y_std, dtype=torch.float32),
    )


train_dl = DataLoader(TensorDataset(*to_tensors(X_train, y_train)), batch_size=64, shuffle=True)
test_x, test_y = to_tensors(X_test, y_test)

model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
loss_func = nn.MSELoss()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)

for epoch in range(25):
    model.train()
    for xb, yb in train_dl:
        loss = loss_func(model(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
    model.eval()
    with torch.no_grad():
        prediction = model(test_x).numpy().ravel()
    if epoch % 4 == 0:
        print(f"epoch {epoch}: train loss {loss.item():.4f}  R2 = {r2_score(test_y.numpy(), prediction):.4f}")
