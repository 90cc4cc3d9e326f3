"""Loops over trials; so far one of them: repair."""

from gradwise.search.attempts import Bench, Plan
from gradwise.search.measure import Measure
from gradwise.search.repair import Repaired, repair

__all__ = ["Bench", "Measure", "Plan", "Repaired", "repair"]
