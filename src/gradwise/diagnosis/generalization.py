"""Checks on what the end of a run shows: over- and under-fitting, regularization that is too strong."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
