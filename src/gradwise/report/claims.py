"""A claim put to the test, on the terminal, as HTML and as a page of the docs; all from `lab/account.py`'s data."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradwise.legible import duration, printable
from gradwise.report.html import escaped, figure_html, write_document
from gradwise.report.sketch import sketch

if TYPE_CHECKING:
    import plotly.graph_objects as go

Claim = Mapping[str, Any]
Figures = Mapping[str, "go.Figure"]

_WIDEST = 96
_STYLES = {
    "holds": "bold green",
    "holds with conditions": "bold yellow",
    "does not hold": "bold red",
    "undecided": "bold",
}
MARKS = {True: "✓", False: "✗", None: "?"}
_CLASSES = {"holds": "healthy", "does not hold": "sick"}


def word(claim: Claim) -> str:
    """The verdict in a few words."""
    return str(claim["verdict"]["word"]) if claim["verdict"] else "not yet run"


def form(claim: Claim) -> str:
    """Which form it is, and with how many seeds."""
    many = len(claim["seeds"])
    seeds = f"{many} seed{'s' if many != 1 else ''}"
    return f"{'quick form' if claim['quick'] else 'full form'}, {seeds}"


def made(claim: Claim) -> str:
    """Where and when the runs were made, in a sentence; "" where there are none."""
    said = claim["made"]
    if not said:
        return ""
    where = f"{', '.join(said['processor'])}, torch {', '.join(said['torch'])}, gradwise {', '.join(said['gradwise'])}"
    threads = "one thread" if said["threads"] == ["1"] else f"{', '.join(said['threads'])} threads"
    return f"Measured {' to '.join(said['dates'])} in {duration(said['seconds'])} of {threads} ({where})."


def render_claim(claim: Claim, figures: Figures, console: Console | None = None) -> None:
    """Print a claim, how it was tested, what was measured and what became of it."""
    console = console or Console()
    width = max(50, min(console.width, _WIDEST))
    encoding = console.encoding or "ascii"
    for piece in _page(claim, figures, width, console.options.ascii_only):
        shown = Text(printable(piece, encoding)) if isinstance(piece, str) else piece
        wide = _wide_enough(piece, console) if isinstance(piece, Table) else None
        console.print(shown, highlight=False, emoji=False, crop=False, width=wide)


def _page(claim: Claim, figures: Figures, width: int, ascii_only: bool) -> Iterator[Text | Table | str]:
    encoding = "ascii" if ascii_only else "utf-8"
    verdict = claim["verdict"]
    yield Text.assemble((printable(f"{claim['id']}  {claim['title']}", encoding), "bold"), (f"  {form(claim)}", "dim"))
    for label, key in (("claim", "claim"), ("source", "source"), ("set-up", "setup")):
        yield from _wrapped(f"{label}: {claim[key]}", width, "  ")
    for note in claim["notes"]:
        yield from _wrapped(f"note: {note}", width, "  ")
    for table in claim["tables"]:
        yield ""
        yield Text(printable(f"  {table['title']}", encoding), "bold")
        yield _table(table["rows"], encoding)
    for name, figure in figures.items():
        lines = sketch(figure, width=width - 2, ascii_only=ascii_only)
        if lines:
            yield ""
            title = claim["figures"].get(name, name) + (" (quick form)" if claim["quick"] else "")
            yield Text(printable(f"  {title}", encoding), "bold")
            yield from (Text("  ").append_text(line) for line in lines)
    yield ""
    if verdict is None:
        yield f"{claim['id']} has no complete seed yet: {_lacking(claim)}"
        return
    for statement in verdict["statements"]:
        mark = printable(MARKS[statement["held"]], encoding)
        condition = f" — {statement['condition']}" if statement["condition"] else ""
        yield from _wrapped(f"{mark} {statement['text']}{condition}", width, "  ", "    ")
    yield Text(printable(f"{claim['id']} {word(claim)}", encoding), _STYLES.get(word(claim), "bold"))
    if verdict["why"]:
        yield from _wrapped(verdict["why"], width, "  ")
    if claim["lacking"]:
        yield _lacking(claim)
    yield from _wrapped(made(claim), width, "")


def _lacking(claim: Claim) -> str:
    many = claim["lacking"]
    return f"{many} run{'s are' if many != 1 else ' is'} not there yet; the same command makes them"


def _wrapped(words: str, width: int, indent: str, after: str = "") -> Iterator[str]:
    # Said once more here since rich wraps without an indent.
    yield from textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=after or indent + "  ")


def _table(rows: Sequence[Sequence[str]], encoding: str) -> Table:
    """Columns wrap between words only; a table that is wider than the terminal for all that stays whole."""
    table = Table(box=None, pad_edge=True, header_style="dim")
    for k, column in enumerate(zip(*rows, strict=True)):
        cells = [printable(cell, encoding) for cell in column]
        figures = k and all(len(cell) < 28 for cell in cells[1:])
        longest = max((cell_len(word) for cell in cells for word in cell.split()), default=1)
        # Figures are never wrapped; words are, but not to a ladder of single ones.
        least = max(map(cell_len, cells[1:]), default=1) if figures else min(24, max(map(cell_len, cells)))
        table.add_column(cells[0], justify="right" if figures else "left", min_width=max(longest, least))
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell, encoding)) for cell in row))
    return table


def _wide_enough(table: Table, console: Console) -> int:
    """The width to print a table in: the console's, or more where its figures need it."""
    return max(console.width, 2 + sum((column.min_width or 0) + 2 for column in table.columns))


def render_list(claims: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what claims there are: id, title, data, time and what became of each."""
    console = console or Console()
    encoding = console.encoding or "ascii"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("claim", "", "quick", "full", "needs", "verdict so far"):
        table.add_column(title, justify="right" if title in ("quick", "full") else "left")
    for each in claims:
        cells = [each["id"], each["title"], *each["time"], each["needs"], each["verdict"]]
        table.add_row(*(Text(printable(cell, encoding)) for cell in cells))
    console.print(table, highlight=False, emoji=False)


def write_claims_json(path: str | os.PathLike[str], claims: Sequence[Claim]) -> None:
    """Write what became of claims, with all runs, as JSON; one claim as an object, several as a list of them.

    Raises:
        OSError: where the file cannot be written.
    """
    data = claims[0] if len(claims) == 1 else list(claims)
    Path(path).write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def write_claims_html(path: str | os.PathLike[str], claims: Sequence[tuple[Claim, Figures]]) -> None:
    """Write claims as one HTML file with interactive figures, which needs no network.

    Raises:
        OSError: where the file cannot be written.
    """
    title = "claims: " + ", ".join(claim["id"] for claim, _ in claims)
    write_document(path, title, (piece for claim, figures in claims for piece in _html(claim, figures)))


def _html(claim: Claim, figures: Figures) -> Iterator[str]:
    verdict = claim["verdict"]
    yield f'<header><span class="verdict {_CLASSES.get(word(claim), "")}">{escaped(word(claim))}</span>'
    yield f"<h1>{escaped(claim['id'])} · {escaped(claim['title'])}</h1>"
    yield f'<p class="soft">{escaped(form(claim))}</p></header>'
    yield f'<p class="summary">{escaped(claim["claim"])}</p><p class="soft">{escaped(claim["source"])}</p>'
    if verdict is not None:
        rows = "".join(map(_html_statement, verdict["statements"]))
        yield f'<h3>What was found</h3><table class="found">{rows}</table>'
        yield f"<p>{escaped(verdict['why'])}</p>" if verdict["why"] else ""
    for name, figure in figures.items():
        yield figure_html(figure, claim["figures"].get(name, name) + (" — quick form" if claim["quick"] else ""))
    for table in claim["tables"]:
        head, *rows = table["rows"]
        body = "".join(
            f"<tr><th>{escaped(row[0])}</th>{''.join(f'<td>{escaped(c)}</td>' for c in row[1:])}</tr>" for row in rows
        )
        yield f'<h3>{escaped(table["title"])}</h3><div class="scroll"><table class="pairs measured"><thead><tr>'
        yield f"{''.join(f'<th>{escaped(c)}</th>' for c in head)}</tr></thead><tbody>{body}</tbody></table></div>"
    yield f"<h3>How</h3><p>{_html_code(claim['setup'])}</p>"
    yield from (f"<p>{_html_code(note)}</p>" for note in claim["notes"])
    yield f'<footer class="soft">{escaped(made(claim))}</footer>'


def _html_code(words: str) -> str:
    """Text with what stands between backticks as code."""
    parts = words.split("`")
    return "".join(f"<code>{escaped(part)}</code>" if k % 2 else escaped(part) for k, part in enumerate(parts))


def _html_statement(statement: Mapping[str, Any]) -> str:
    kind = {True: "yes", False: "no", None: ""}[statement["held"]]
    condition = f" — <em>{escaped(statement['condition'])}</em>" if statement["condition"] else ""
    text = escaped(statement["text"]) + condition
    return f'<tr><td class="{kind}">{MARKS[statement["held"]]}</td><td>{text}</td></tr>'


def markdown(claim: Claim, pictures: Mapping[str, str]) -> str:
    """A page of the docs: the claim, what was found, tables and pictures.

    Args:
        claim: the account.
        pictures: from a figure's name to where its picture lies, relative to the page.
    """
    verdict = claim["verdict"]
    parts = [f"# {claim['id']}: {_inline(claim['title'])}", f"**{word(claim)}** ({form(claim)})"]
    parts += [_lines(f"*Claim.* {_inline(claim['claim'])}"), _lines(f"*Source.* {_inline(claim['source'])}")]
    if verdict is not None:
        parts.append("## What was found")
        marks = {True: "holds", False: "does not hold", None: "undecided"}
        listed = []
        for s in verdict["statements"]:
            condition = f" — {s['condition']}" if s["condition"] else ""
            mark = f"{marks[s['held']]}{condition and ' '}{_inline(condition.lstrip())}"
            listed.append(_lines(f"- *{mark}*: {_inline(s['text'])}", "  "))
        parts.append("\n".join(listed))
        parts += [_plain(verdict["why"])] if verdict["why"] else []
    for name, path in pictures.items():
        title = claim["figures"].get(name, name)
        parts.append(f"![{_inline(title)}]({path})")
        parts.append(f"*{_inline(title)}{' — quick form' if claim['quick'] else ''}.*")
    for table in claim["tables"]:
        parts += [f"### {_inline(table['title'])}", _md_table(table["rows"])]
    parts += ["## How", _plain(claim["setup"])]
    parts += [_plain(note) for note in claim["notes"]]
    quick = " --quick" if claim["quick"] else ""
    seeds = f" --seeds {len(claim['seeds'])}" if len(claim["seeds"]) != 3 else ""
    parts.append(f"```sh\ngradwise claims {claim['id']}{quick}{seeds}\n```")
    if made(claim):
        parts.append(_plain(made(claim)))
    parts.append("<!-- written by gradwise claims --page -->")
    return "\n\n".join(parts) + "\n"


def md_summary(claims: Sequence[Claim], folder: str = "") -> str:
    """A table of claims and verdicts in Markdown.

    Args:
        claims: the accounts.
        folder: where the pages lie, as seen from where the table stands.
    """
    head = ["", "claim", "verdict", ""]
    rows = [[f"[{c['id']}]({folder}{c['id'].lower()}.md)", c["title"], word(c), form(c)] for c in claims]
    return _md_table([head, *rows])


def _md_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[_inline(cell) if "](" not in cell else cell for cell in row] for row in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)] if _figures(body) else ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(rows: Sequence[Sequence[str]]) -> bool:
    """Whether most of a table is numbers, which are then set flush right."""
    cells = [cell for row in rows for cell in row[1:] if cell]
    return sum(bool(re.match(r"^[\[−+-]?\d", cell)) for cell in cells) > len(cells) / 2


def _inline(words: str) -> str:
    """Text that Markdown shows as it is, but for code between backticks."""
    parts = " ".join(words.split()).split("`")
    return "`".join(part if k % 2 else re.sub(r"([|*_<>])", r"\\\1", part) for k, part in enumerate(parts))


def _plain(words: str, indent: str = "") -> str:
    return _lines(_inline(words), indent)


def _lines(words: str, indent: str = "") -> str:
    return "\n".join(
        textwrap.wrap(words, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )
