"""Checks on scales: of inputs, of initial weights, of gradients from layer to layer."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
