import argparse

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

VOCAB = 40


class AttentionClassifier(nn.Module):
    def __init__(self, dim=24):
        super().__init__()
        self.embed = nn.Embedding(VOCAB + 1, dim, padding_idx=0)
        self.query = nn.Linear(dim, 1)
        self.output = nn.Linear(dim, 2)

    def forward(self, tokens):
        x = self.embed(tokens)
        scores = self.query(torch.tanh(x)).squeeze(-1)
        scores = scores.masked_fill(tokens == 0, float("-inf"))
        weights = torch.softmax(scores, dim=1)
        return self.output((weights.unsqueeze(-1) * x).sum(1))


def make_reviews(n):
    """Token lists; the sum of the tokens' hidden sentiments decides. A few are empty."""
    sentiment = torch.randn(VOCAB + 1, generator=torch.Generator().manual_seed(99))
    reviews = []
    for _ in range(n):
        length = int(torch.randint(1, 15, ())) if torch.rand(()) > 0.002 else 0
        tokens = torch.randint(1, VOCAB + 1, (length,))
        reviews.append((tokens, int(sentiment[tokens].sum() > 0)))
    return reviews


def collate(batch):
    tokens = pad_sequence([t for t, _ in batch], batch_first=True)
    return tokens, torch.tensor([label for _, label in batch])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-3)
    args = parser.parse_args()

    train_loader = DataLoader(make_reviews(3000), batch_size=50, shuffle=True, collate_fn=collate)
    test = [review for review in make_reviews(800) if len(review[0])]
    test_tokens, test_labels = collate(test)
    model = AttentionClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        total = 0.0
        for tokens, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(tokens), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        with torch.no_grad():
            accuracy = (model(test_tokens).argmax(1) == test_labels).float().mean()
        print(f"[ Epoch {epoch} ] loss: {total / len(train_loader):.4f}, accuracy: {100 * accuracy:.2f} %")


if __name__ == "__main__":
    main()
