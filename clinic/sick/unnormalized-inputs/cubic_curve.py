import torch
import torch.nn as nn
import torch.nn.functional as F


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(in_features=1, out_features=50, bias=True)
        self.fc2 = nn.Linear(in_features=50, out_features=50, bias=True)
        self.fc3 = nn.Linear(in_features=50, out_features=1, bias=True)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


model = Network()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.MSELoss()

x = torch.arange(1.0, 4000.0).unsqueeze(1)
target = x**3 - 5000.0 * x**2 + 6.0e6 * x
target = (target - target.mean()) / target.std()

for epoch in range(60):
    for idx in torch.randperm(len(x)).split(250):
        optimizer.zero_grad()
        out = model(x[idx])
        loss = criterion(out, target[idx])
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            full = criterion(model(x), target).item()
        print("Epoch {}, loss {:.6f}".format(epoch, full))
