import random
import torch
from torch import nn

random.seed(1)
torch.manual_seed(1)
VOCAB, TOPICS, DOCS = 400, 5, 1600
tables = [[random.random() ** 4 for _ in range(VOCAB)] for _ in range(TOPICS)]


def document():
    topic = random.randrange(TOPICS)
    return random.choices(range(VOCAB), weights=tables[topic], k=random.randint(8, 20)), topic


docs = [document() for _ in range(DOCS)]
held, docs = docs[:400], docs[400:]


def collate(batch):
    flat = torch.tensor([w for words, _ in batch for w in words])
    offsets = torch.tensor([0] + [len(words) for words, _ in batch][:-1]).cumsum(0)
    return flat, offsets, torch.tensor([topic for _, topic in batch])


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(VOCAB, 16, mode='mean')
        self.out = nn.Linear(16, TOPICS)

    def forward(self, flat, offsets):
        return self.out(self.words(flat, offsets))


model = Bag()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(10):
    random.shuffle(docs)
    running = 0.0
    for i in range(0, len(docs), 40):
        flat, offsets, topic = collate(docs[i:i + 40])
        loss = nn.functional.cross_entropy(model(flat, offsets), topic)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
    with torch.no_grad():
        flat, offsets, topic = collate(held)
        logits = model(flat, offsets)
        print('epoch', epoch + 1, 'loss', running / 30, 'held-out loss', nn.functional.cross_entropy(logits, topic).item(), 'held-out accuracy', (logits.argmax(1) == topic).float().mean().item())
