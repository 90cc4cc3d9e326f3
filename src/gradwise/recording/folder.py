"""The folder beside a script in which gradwise keeps what it keeps."""

from __future__ import annotations

from pathlib import Path

FOLDER = ".gradwise"


def make_folder(folder: Path) -> None:
    """Make it where it isn't there, such that git doesn't see it.

    Raises:
        OSError: it can't be made.
    """
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
