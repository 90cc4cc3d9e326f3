"""A diagnosis as terminal text, HTML, a notebook cell and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

from gradwise.diagnosis.findings import Diagnosis
from gradwise.report.html import notebook_html, write_html
from gradwise.report.live import LiveLine
from gradwise.report.schema import check
from gradwise.report.terminal import render

__all__ = ["LiveLine", "notebook_html", "read_json", "render", "write_html", "write_json"]


def write_json(path: str | os.PathLike[str], diagnosis: Diagnosis) -> None:
    """Write the report as JSON (UTF-8, see docs/reference/report-json.md); an existing file is replaced.

    Raises:
        OSError: where the file cannot be written.
    """
    text = json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A lone surrogate (a file name that is no UTF-8) comes out as \udcXX, which is how JSON spells it.
    Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))


def read_json(path: str | os.PathLike[str]) -> Diagnosis:
    """The diagnosis that `write_json` wrote.

    Raises:
        OSError: where the file cannot be read.
        ValueError: where it is no report, naming the file and the field.
    """
    try:
        data = json.loads(Path(path).read_bytes(), parse_constant=_refuse)
        check(data)
        return Diagnosis.from_json(data)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors too
        raise ValueError(f"{os.fspath(path)} is not a gradwise report: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")
