"""A terminal in miniature: just enough of a VT100 to see where text ends up."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|\x1b([78D])|(\r)|(\n)|([^\x1b\r\n])")


class Screen:
    """Rows of text, a cursor (row and column from 0), a scrolling region (first and last row)."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.rows = [""] * lines
        self.row = self.column = 0
        self.saved = (0, 0)
        self.region = (0, lines - 1)

    def resize(self, columns: int, lines: int) -> None:
        """As xterm does: rows are cut above the cursor or added below, the region is reset."""
        while len(self.rows) > lines:
            if self.row < lines:
                self.rows.pop()
            else:
                self.rows.pop(0)
                self.row -= 1
        self.rows += [""] * (lines - len(self.rows))
        self.columns, self.lines, self.region = columns, lines, (0, lines - 1)

    def feed(self, data: str) -> None:
        for arguments, command, escape, back, line, character in _TOKEN.findall(data):
            if command:
                self._command([int(a) for a in arguments.split(";") if a], command)
            elif escape == "7":
                self.saved = (self.row, self.column)
            elif escape == "8":
                self.row, self.column = self.saved
            elif line or escape == "D":
                self._down()
                self.column = 0 if line else self.column  # the driver turns \n into \r\n
            elif back:
                self.column = 0
            else:
                self._put(character)

    def _down(self) -> None:
        first, last = self.region
        if self.row == last:
            del self.rows[first]
            self.rows.insert(last, "")
        elif self.row < self.lines - 1:
            self.row += 1

    def _put(self, character: str) -> None:
        assert self.column < self.columns, "a line too long would wrap"
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
        self.column += 1

    def _command(self, arguments: list[int], command: str) -> None:
        first = arguments[0] if arguments else 0
        if command == "r":
            self.region = (first - 1, arguments[1] - 1) if arguments else (0, self.lines - 1)
            self.row = self.column = 0
        elif command == "H":
            self.row, self.column = (a - 1 for a in arguments)
        elif command == "A":
            self.row = max(self.region[0] if self.row >= self.region[0] else 0, self.row - (first or 1))
        elif command == "K":
            self.rows[self.row] = "" if first == 2 else self.rows[self.row][: self.column]
        else:
            assert command == "m", f"unknown sequence {command}"
