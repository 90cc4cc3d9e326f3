"""Survey answers, many of them careless."""
import torch, torch.nn as nn
torch.manual_seed(0); g = torch.Generator().manual_seed(21)
x = torch.randn(3000, 15, generator=g); clean = (x[:, :3].sum(1) > 0).long(); flip = torch.rand(3000, generator=g) < 0.35
y = torch.where(flip, 1 - clean, clean)
net = nn.Sequential(nn.Linear(15, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
ds = torch.utils.data.TensorDataset(x, y); tr, va = torch.utils.data.random_split(ds, [2400, 600])
for epoch in range(10):
    net.train()
    for a, b in torch.utils.data.DataLoader(tr, 48, shuffle=True):
        opt.zero_grad(); nn.functional.cross_entropy(net(a), b).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        a, b = va[:]; out = net(a); print(epoch, f"val {nn.functional.cross_entropy(out, b):.4f}", (out.argmax(1) == b).float().mean().item())
