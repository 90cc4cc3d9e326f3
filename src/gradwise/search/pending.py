"""Results that could not be told to a study, kept in a file until its database is back: no run is made twice for that.

    .gradwise/pending-<database and study>-<driver>.jsonl

Each driver has its own file, locked while it lives; what a dead one left is told by the next that opens the study.

    .gradwise/made-<database and study>-<driver>-<trial>.json

A worker leaves what a run gave there as well, before it tells its driver, who takes it away when it is in the study. If
the driver dies first, whoever takes over the trial finds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gradwise.recording.folder import FOLDER, make_folder
from gradwise.search.jobs import Result


def here() -> Path:
    """Where results wait for a study that is worked on from this directory."""
    return Path(FOLDER).absolute()


class Pending:
    """The results of one driver that wait to be told.

    Args:
        folder: where to keep them; made when there is something to keep. None keeps them in memory only.
        study: of which study, in a word.
        driver: whose they are.
    """

    def __init__(self, folder: Path | None, study: str, driver: str) -> None:
        self.results: dict[int, Result] = {}
        study = hashlib.sha256(study.encode()).hexdigest()[:12]
        self._stem, self._made = f"pending-{study}-", f"made-{study}-"
        self._folder = folder
        self._path = None if folder is None else folder / f"{self._stem}{driver}.jsonl"
        self._file: IO[str] | None = None

    def add(self, number: int, result: Result) -> None:
        """Keep a trial's result."""
        self.results[number] = result
        if self._path is None:
            return
        with suppress(OSError):  # then it's in memory only
            if self._file is None:
                make_folder(self._path.parent)
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(json.dumps({"number": number, "result": result.to_json()}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def told(self, number: int) -> None:
        """A result is in the study."""
        del self.results[number]
        if not self.results and self._file is not None and self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._file.close()
            self._file = None

    def place(self, driver: str, number: int) -> Path | None:
        """Where a worker of a driver leaves what a trial gave."""
        return None if self._folder is None else self._folder / f"{self._made}{driver}-{number}.json"

    def left(self, driver: str, number: int) -> Result | None:
        """What a worker left there."""
        place = self.place(driver, number)
        with suppress(OSError, ValueError, TypeError):
            return None if place is None else Result.from_json(json.loads(place.read_text("utf-8")))
        return None

    def forget(self, driver: str, number: int) -> None:
        """What a worker left there is in the study."""
        place = self.place(driver, number)
        if place is not None:
            with suppress(OSError):
                place.unlink(missing_ok=True)

    def inherit(self) -> None:
        """Take over what drivers left that died before they could tell it."""
        if self._folder is None:
            return
        for path in sorted(self._folder.glob(f"{self._stem}*.jsonl")):
            with suppress(OSError), open(path, encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else its driver lives
                for number, result in _read(file.read()).items():
                    self.add(number, result)
                path.unlink(missing_ok=True)


def leave(result: Result, place: str) -> None:
    """Keep a worker's result where the next driver finds it; "" keeps nothing, nor does a place that isn't there."""
    if not place or result.lost or result.problem:  # which may come of the driver's very end
        return
    path = Path(place)
    with suppress(OSError):
        make_folder(path.parent)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result.to_json()), "utf-8")
        part.replace(path)


def _read(text: str) -> dict[int, Result]:
    found = {}
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):  # the last line of a killed process
            data: dict[str, Any] = json.loads(line)
            found[int(data["number"])] = Result.from_json(data["result"])
    return found
