import torch
import torch.nn.functional as F
from torch import nn

VOCAB, CONTEXT = 24, 4
CONFIG = {"d_model": 24, "batch_size": 64, "steps": 1000, "lr": 0.1, "log_interval": 200}


def make_corpus(length, generator):
    # every pair of symbols prefers three successors
    favourites = torch.randint(0, VOCAB, (VOCAB, 3), generator=generator)
    text = [0, 1]
    choice = torch.randint(0, 3, (length,), generator=generator)
    jump = torch.rand(length, generator=generator)
    anywhere = torch.randint(0, VOCAB, (length,), generator=generator)
    for i in range(length):
        j = min(int(choice[i]), int(choice[i - 1])) if i else 0
        text.append(int(anywhere[i]) if jump[i] < 0.1 else int(favourites[text[-1], j]))
    return torch.tensor(text)


class CharModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, config["d_model"])
        self.mlp = nn.Sequential(
            nn.Linear(CONTEXT * config["d_model"], 64),
            nn.ReLU(),
            nn.Linear(64, VOCAB),
        )

    def forward(self, idx, targets):
        x = self.embedding(idx).flatten(1)
        logits = F.softmax(self.mlp(x), dim=-1)
        return logits, F.cross_entropy(logits, targets)


def get_batch(data, size):
    start = torch.randint(0, len(data) - CONTEXT - 1, (size,))
    window = data[start[:, None] + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, -1]


def main():
    torch.manual_seed(1337)
    corpus = make_corpus(7500, torch.Generator().manual_seed(1))
    train_data, val_data = corpus[:6000], corpus[6000:]
    model = CharModel(CONFIG)
    optimizer = torch.optim.SGD(model.parameters(), lr=CONFIG["lr"], momentum=0.9)
    for step in range(1, CONFIG["steps"] + 1):
        xs, ys = get_batch(train_data, CONFIG["batch_size"])
        _, loss = model(xs, ys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % CONFIG["log_interval"] == 0:
            with torch.no_grad():
                _, val_loss = model(*get_batch(val_data, 1500))
            print(f"step {step} | loss {loss.item():.4f} | val loss {val_loss.item():.4f}")


if __name__ == "__main__":
    main()
