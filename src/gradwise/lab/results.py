"""What was measured, kept: one JSON file per run of a cell with a seed, written as the run ends.

A run is used again only while its cell's settings are the same. Several processes may work on one experiment: each run
is taken by one of them, which the operating system forgets about when that process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradwise.lab.experiment import Cell, Measures
from gradwise.lab.writing import replacing


@dataclass(frozen=True)
class Record:
    """One run: which, what it measured, where and how long.

    Args:
        experiment: the experiment's id.
        quick: whether it was its reduced form.
        cell: the cell's name.
        seed: the seed.
        settings: the cell's settings.
        measures: what was measured.
        provenance: gradwise, torch, Python, processor, threads, date, seconds.
    """

    experiment: str
    quick: bool
    cell: str
    seed: int
    settings: Mapping[str, Any]
    measures: Measures
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Any) -> Record:
        """The record that a JSON object describes; ValueError if it describes none."""
        if not isinstance(data, dict) or set(data) != set(Record.__dataclass_fields__):
            raise ValueError(f"a run's record has {', '.join(Record.__dataclass_fields__)}")
        return Record(**data)


class Results:
    """The runs kept in a folder.

    Args:
        folder: made when the first run is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, experiment: str, quick: bool, cell: Cell, seed: int) -> Record | None:
        """The run of a cell with a seed, if it was kept with these settings."""
        path = self._path(experiment, quick, cell, seed)
        try:
            record = Record.from_json(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError):
            return None  # not there, or not ours: it is run, and written anew
        return record if record.settings == plain(cell.settings) else None

    def keep(self, record: Record, cell: Cell) -> Record:
        """Write a run; it is there as a whole or not at all. What comes back is what will be read."""
        path = self._path(record.experiment, record.quick, cell, record.seed)
        data = plain(record.to_json())
        with replacing(path) as file:
            file.write((json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        self.checkpoint(record.experiment, record.quick, cell, record.seed).unlink(missing_ok=True)
        return Record.from_json(data)

    def checkpoint(self, experiment: str, quick: bool, cell: Cell, seed: int) -> Path:
        """The file that a run under way may keep its state in."""
        return self._path(experiment, quick, cell, seed).with_suffix(".checkpoint")

    @contextmanager
    def taken(self, experiment: str, quick: bool, cell: Cell, seed: int) -> Iterator[bool]:
        """Whether this process may make the run: False while another one is at it."""
        path = self._path(experiment, quick, cell, seed).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            ours = False
            try:
                # Whoever had it before may have taken the file away between our opening and our locking it.
                ours = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
                yield ours
            finally:
                if ours:
                    path.unlink(missing_ok=True)

    def _path(self, experiment: str, quick: bool, cell: Cell, seed: int) -> Path:
        name = re.sub(r"[^a-z0-9.]+", "-", cell.name.lower().replace("η", "lr")).strip("-.")
        text = json.dumps([cell.name, plain(cell.settings)], sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.folder / experiment / ("quick" if quick else "full") / f"{name}-{mark}-seed{seed}.json"


def default_folder() -> Path:
    """`GRADWISE_RESULTS`, else `gradwise/claims/` in the user's folder of data."""
    home = os.environ.get("GRADWISE_RESULTS")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(home) if home else data / "gradwise" / "claims"


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples as lists, numbers that aren't finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):  # numpy's and torch's numbers
        return plain(value.item())
    raise TypeError(f"a measure must be a number, text, or lists and dicts of them; got {type(value).__name__}")


def provenance(version: str, seconds: float) -> dict[str, Any]:
    """Where a run was made, by which version of gradwise, and how long it took."""
    import torch

    return {
        "gradwise": version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 1),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
