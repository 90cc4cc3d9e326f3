"""Checks on rates that end too early, epsilon, and which parameters decay."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
