import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build_model():
    backbone = nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10), nn.Tanh())
    head = nn.Linear(10, 10)
    return nn.ModuleDict({"backbone": backbone, "head": head})


def forward(model, x):
    return model["head"](model["backbone"](x))


def run_stage(name, model, loader, test, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = criterion(forward(model, xb), yb)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            acc = (forward(model, test[0]).argmax(1) == test[1]).float().mean().item()
        print(f"{name} epoch {epoch}: loss={loss.item():.3f} accuracy={acc:.4f}")


if __name__ == "__main__":
    torch.manual_seed(2024)
    digits = load_digits()
    X = torch.tensor((digits.data - digits.data.mean()) / digits.data.std(), dtype=torch.float32)
    y = torch.tensor(digits.target)
    X_tr, X_te, y_tr, y_te = train_test_split(X, y, test_size=0.3, random_state=0)
    loader = DataLoader(TensorDataset(X_tr, y_tr), batch_size=32, shuffle=True)

    model = build_model()
    # stage 1: let the new head settle
    for p in model["backbone"].parameters():
        p.requires_grad = False
    run_stage("warm-up", model, loader, (X_te, y_te), epochs=3, lr=5e-3)

    # stage 2: fine-tune everything
    for p in model["backbone"].parameters():
        p.require_grad = True
    run_stage("fine-tune", model, loader, (X_te, y_te), epochs=15, lr=3e-3)
