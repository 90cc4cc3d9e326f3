import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn


class Trainer:
    def __init__(self, model, lr, total):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-2)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)
        self.loss = nn.BCEWithLogitsLoss()

    def step(self, x, y):
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = self.model(x).squeeze(1)
        loss = self.loss(out.float(), y)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self, x, y):
        self.model.eval()
        out = self.model(x).squeeze(1)
        return self.loss(out, y).item(), ((out > 0) == (y > 0.5)).float().mean().item()


def main():
    torch.manual_seed(8)
    x, y = load_breast_cancer(return_X_y=True)
    xa, xb, ya, yb = train_test_split(x, y, test_size=0.25, random_state=8, stratify=y)
    scaler = StandardScaler().fit(xa)
    xa, xb = (torch.tensor(scaler.transform(v), dtype=torch.float32) for v in (xa, xb))
    ya, yb = (torch.tensor(v, dtype=torch.float32) for v in (ya, yb))
    epochs, batch = 10, 32
    model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 1))
    trainer = Trainer(model, lr=0.05, total=epochs * -(-len(xa) // batch))
    for epoch in range(epochs):
        losses = [trainer.step(xa[i], ya[i]) for i in torch.randperm(len(xa)).split(batch)]
        if epoch % 2 == 1:
            test, acc = trainer.evaluate(xb, yb)
            print(f"epoch {epoch + 1} train {sum(losses) / len(losses):.4f} test loss {test:.4f} acc {acc:.3f}")


main()
