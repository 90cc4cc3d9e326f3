"""Checks on the noise of gradients."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
