"""Recording -> findings -> remedies: pure functions that never see a live process."""

from gradwise.diagnosis.diagnose import diagnose
from gradwise.diagnosis.findings import CheckItem, Diagnosis, Finding, Remedy, Where

__all__ = ["CheckItem", "Diagnosis", "Finding", "Remedy", "Where", "diagnose"]
