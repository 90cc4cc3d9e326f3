import numpy as np
import torch
from torch import nn

USERS, MOVIES, FACTORS = 600, 400, 6


class RatingModel(nn.Module):
    """Embeddings of users and movies, fed to a small network with some facts about the session."""

    def __init__(self):
        super().__init__()
        self.user = nn.Embedding(USERS, FACTORS)
        self.movie = nn.Embedding(MOVIES, FACTORS)
        nn.init.normal_(self.user.weight, std=0.3)
        nn.init.normal_(self.movie.weight, std=0.3)
        self.context = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, user, movie, session):
        taste = (self.user(user) * self.movie(movie)).sum(-1)
        return taste + self.context(session).squeeze(-1)


def make_data(rng, n):
    true_user = rng.standard_normal((USERS, 3))
    true_movie = rng.standard_normal((MOVIES, 3))
    w = rng.standard_normal(8) / np.sqrt(8)
    user, movie = rng.integers(USERS, size=n), rng.integers(MOVIES, size=n)
    session = rng.standard_normal((n, 8))
    rating = (true_user[user] * true_movie[movie]).sum(1) / np.sqrt(3) + 0.5 * np.tanh(session @ w)
    rating = rating + 0.1 * rng.standard_normal(n)
    return [torch.as_tensor(a) for a in (user, movie, session.astype(np.float32), rating.astype(np.float32))]


def main():
    rng = np.random.default_rng(1)
    user, movie, session, rating = make_data(rng, 30000)
    n_train = 27000
    model = RatingModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    for epoch in range(6):
        order = torch.randperm(n_train)
        total = 0.0
        for idx in order.split(128):
            prediction = model(user[idx], movie[idx], session[idx])
            loss = nn.functional.mse_loss(prediction, rating[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(idx)
        with torch.no_grad():
            prediction = model(user[n_train:], movie[n_train:], session[n_train:])
            rmse = (prediction - rating[n_train:]).pow(2).mean().sqrt().item()
        print(f"epoch {epoch + 1}: train mse {total / n_train:.4f}, held-out rmse {rmse:.4f}")


if __name__ == "__main__":
    main()
