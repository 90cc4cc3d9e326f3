"""Checks on activations: units that are dead or saturated."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
