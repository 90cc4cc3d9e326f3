"""Optimizers: every rule written once, run fused. Drop-ins for those of `torch.optim` that share their names."""

from gradwise.optim.adam import LAMB, AdaBelief, Adam, Adamax, AdamW, Lion, NAdam, RAdam
from gradwise.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from gradwise.optim.averaging import ASGD, ScheduleFreeAdamW, ScheduleFreeSGD
from gradwise.optim.optimizer import Optimizer, Telemetry
from gradwise.optim.rules.rule import Rule, State, View, rule
from gradwise.optim.sgd import SGD

__all__ = [
    "ASGD", "LAMB", "SGD", "AdaBelief", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "Rprop", "Rule", "ScheduleFreeAdamW", "ScheduleFreeSGD", "State", "Telemetry", "View", "rule",
]  # fmt: skip
