"""Checks on the data: their order, and whether labels belong to inputs."""

from __future__ import annotations

from gradwise.diagnosis.case import Check

CHECKS: tuple[Check, ...] = ()
