"""Which modules drop how much."""

from __future__ import annotations

import torch
from torch import nn
from watching import train, watched


def test_dropout_modules_are_told_with_their_names() -> None:
    with watched() as seen:
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
        train(model, torch.optim.SGD(model.parameters(), 0.1), 3)
    (event,) = seen.recording.happened("dropout")
    assert event.data["modules"] == {"1": 0.4}


def test_recurrent_layers_drop_between_layers() -> None:
    with watched() as seen:
        rnn, head = nn.GRU(3, 4, num_layers=2, dropout=0.3), nn.LSTM(4, 2, num_layers=1)
        optimizer = torch.optim.SGD([*rnn.parameters(), *head.parameters()], 0.1)
        head(rnn(torch.ones(5, 2, 3))[0])[0].sum().backward()
        optimizer.step()
    (event,) = seen.recording.happened("dropout")
    assert event.data["modules"] == {"GRU": 0.3}


def test_no_dropout_no_event() -> None:
    with watched() as seen:
        model = nn.Sequential(nn.Linear(6, 3))
        train(model, torch.optim.SGD(model.parameters(), 0.1), 2)
    assert not seen.recording.happened("dropout")
