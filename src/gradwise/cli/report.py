"""`gradwise report`: remake a report from the store."""

from __future__ import annotations


def report(run: str) -> None:
    """Remake the report of a run."""
