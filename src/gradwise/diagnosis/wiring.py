"""Checks on how the training is wired: gradients, ownership of parameters, modes, what the loss is given."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
