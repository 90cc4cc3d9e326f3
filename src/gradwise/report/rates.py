"""A range test's answer on the terminal, as HTML and as JSON."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gradwise import figures
from gradwise.diagnosis.suggestion import Suggestion
from gradwise.legible import number, printable
from gradwise.report.chart import ramp_chart
from gradwise.report.html import escaped, figure_html, write_document

_WIDEST = 86


@dataclass(frozen=True, slots=True)
class Answer:
    """A suggestion and what it is for.

    Attributes:
        optimizer: its index.
        kind: the rule: the class' name, or what was put in its place; "" where it was never seen.
        found: the suggestion.
        factor: whether rates are factors on the script's own, which steps by hand.
    """

    optimizer: int
    kind: str
    found: Suggestion
    factor: bool = False

    @property
    def title(self) -> str:
        """The answer in a line."""
        name = f"optimizer {self.optimizer} ({self.kind})" if self.kind else f"optimizer {self.optimizer}"
        found = self.found
        if found.rate is None:
            return f"{name}: {'inconclusive' if found.inconclusive else 'no learning rate found'}"
        what = "its own rate ×" if self.factor else "lr = "
        interval = f"{number(found.low, 2)} to {number(found.high, 2)}"
        how = "" if found.confirmed else ", by the ramp alone"
        return f"{name}: {what}{number(found.rate, 2)}, as good from {interval}; for {found.horizon:,} steps{how}"

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Where the phases begin and where the answer lies, by rising rate."""
        phases, rate = self.found.phases, self.found.rate
        named = [(phases.falls, "the fall begins"), (phases.lowest, "lowest"), (phases.jumps, "the jump")]
        if rate is not None:
            named.append((rate, "suggested"))
        return sorted((r, name) for r, name in named if math.isfinite(r))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        about = {"optimizer": self.optimizer, "kind": self.kind, "factor": self.factor}
        return {**about, **self.found.to_json()}


def render_rates(answers: Sequence[Answer], console: Console | None = None) -> None:
    """Print the answers, each with the picture of its ramp, to standard output unless told otherwise."""
    console = console or Console()
    for answer in answers:
        for line in _page(answer, console):
            console.print(line, no_wrap=False, highlight=False, emoji=False)


def _page(answer: Answer, console: Console) -> Iterator[Text]:
    encoding = console.encoding or "ascii"
    width = max(40, min(console.width, _WIDEST))
    found = answer.found
    yield Text(printable(answer.title, encoding), "bold" if found.rate is not None else "bold yellow")
    yield Text()
    yield from ramp_chart(
        found.rates, found.losses, answer.marks, width=width - 2, ascii_only=console.options.ascii_only
    )
    yield Text()
    for words in found.why:
        yield Text(printable(words, encoding))
    yield Text()


def write_rates_json(path: str | os.PathLike[str], command: Sequence[str], answers: Sequence[Answer]) -> None:
    """Write the answers as JSON: `{"command": […], "answers": [{"optimizer", "kind", "lr", "interval", …}]}`.

    Raises:
        OSError: where the file cannot be written.
    """
    data = {"command": list(command), "answers": [a.to_json() for a in answers]}
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))


def write_rates_html(path: str | os.PathLike[str], command: Sequence[str], answers: Sequence[Answer]) -> None:
    """Write the answers as one HTML file with interactive figures.

    Raises:
        OSError: where the file cannot be written.
    """
    write_document(path, f"learning rate: {shlex.join(command)}", _body(command, answers))


def _body(command: Sequence[str], answers: Sequence[Answer]) -> Iterator[str]:
    yield f"<header><h1><code>{escaped(shlex.join(command))}</code></h1></header>"
    for answer in answers:
        yield f'<article class="finding"><h2>{escaped(answer.title)}</h2>'
        caption = (
            "The loss while the learning rate rises; dotted: where the fall begins and where it ends. Diamonds: where "
            "runs at constant rates ended. Shaded: the rates that will do."
        )
        yield figure_html(figures.range_figure(answer.found), caption)
        yield "".join(f"<p>{escaped(words)}</p>" for words in answer.found.why) + "</article>"
