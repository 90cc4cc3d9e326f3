import torch
import torch.nn.functional as F
from torch import nn

# Two-layer classifier over an averaged bag of embeddings; documents are drawn from topic-specific word distributions.

torch.manual_seed(11)
VOCAB, TOPICS, DOC_LEN = 400, 8, 30

topic_words = torch.distributions.Dirichlet(torch.full((VOCAB,), 0.15)).sample((TOPICS,))
background = torch.full((VOCAB,), 1 / VOCAB)


def documents(n):
    topics = torch.randint(TOPICS, (n,))
    words = torch.multinomial(0.25 * topic_words[topics] + 0.75 * background, DOC_LEN, replacement=True)
    return words, topics


model = nn.Sequential(
    nn.EmbeddingBag(VOCAB, 32, mode="mean"),
    nn.Linear(32, 32),
    nn.ReLU(),
    nn.Linear(32, TOPICS),
)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1, lr_decay=0.5)

words, topics = documents(4000)
test_words, test_topics = documents(1000)

for epoch in range(10):
    perm = torch.randperm(len(words))
    for i in range(0, len(words), 50):
        batch = perm[i : i + 50]
        loss = F.cross_entropy(model(words[batch]), topics[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(test_words)
    accuracy = (logits.argmax(1) == test_topics).float().mean().item()
    print(f"epoch={epoch} loss={loss.item():.3f} accuracy={accuracy:.3f}")
