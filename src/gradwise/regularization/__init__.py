"""Regularization: which parameters decay, penalties, exact zeros, averages of weights, when to stop.

>>> import torch
>>> from gradwise.regularization import decay_groups
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
>>> print(decay_groups(model, weight_decay=0.01))
decay · weight_decay 0.01 · 2 tensors, 36 parameters
  0.weight  4 × 8  weight
  2.weight  1 × 4  weight
no decay · weight_decay 0 · 4 tensors, 13 parameters
  0.bias    4      bias
  1.weight  4      normalization
  1.bias    4      normalization
  2.bias    1      bias
"""

from __future__ import annotations

from gradwise.regularization.averaging import Average, average
from gradwise.regularization.groups import Groups, check_groups, decay_groups
from gradwise.regularization.penalties import penalty, prox_l1_
from gradwise.regularization.stopping import Stopping, StoppingState, early_stopping
from gradwise.regularization.zeros import LayerZeros, Sparsity, sparsity

__all__ = [
    "Average",
    "Groups",
    "LayerZeros",
    "Sparsity",
    "Stopping",
    "StoppingState",
    "average",
    "check_groups",
    "decay_groups",
    "early_stopping",
    "penalty",
    "prox_l1_",
    "sparsity",
]
