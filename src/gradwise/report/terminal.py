"""The report as a page of text: at most 60 lines, from 40 columns up, coloured or not, in UTF-8 or ASCII."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from gradwise.diagnosis.findings import Diagnosis
from gradwise.legible import printable
from gradwise.recording.recording import Recording
from gradwise.report.chart import loss_chart
from gradwise.report.page import FindingText, Page, Pairs, RemedyText, write_page

MOST_LINES = 60

_WIDEST = 100
_VERDICTS = {
    "healthy": ("✓ healthy", "bold green"),
    "sick": ("✗ sick", "bold red"),
    "inconclusive": ("? inconclusive", "bold yellow"),
}
_SEVERITIES = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}
_DIFF = {"-": "red", "+": "green"}
_STATUSES = {"verified": "green", "failed": "red", "suggested": "cyan"}
_CHECKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
Part = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is said: rows of chart, lines of explanation, pieces of evidence, remedies, tables …"""

    chart: int = 10
    explanation: int = 12
    evidence: int = 6
    remedies: int = 6
    tables: int = 6
    notes: int = 8
    check: int = 2
    findings: int = 1000
    diffs: bool = True


# For the first finding and for the others, from a page that says all to one that still names every cause. The
# first pair that fits is printed.
_DETAILS = (
    (_Detail(), _Detail()),
    (_Detail(tables=1, notes=4), _Detail(evidence=3, remedies=2, tables=0)),
    (_Detail(8, evidence=4, remedies=4, tables=1, notes=3),
     _Detail(explanation=3, evidence=0, remedies=1, tables=0)),
    (_Detail(7, 5, 3, 2, 1, 2, 1, diffs=False), _Detail(explanation=2, evidence=0, remedies=1, tables=0)),
    (_Detail(7, 5, 3, 1, 1, 2, 1, diffs=False), _Detail(explanation=1, evidence=0, remedies=0)),
    *((_Detail(6, 4, 0, 1, 1, 1, 1, n, diffs=False), _Detail(explanation=1, evidence=0, remedies=0))
      for n in (12, 8, 4, 1)),
)  # fmt: skip


def render(
    diagnosis: Diagnosis,
    recording: Recording,
    console: Console | None = None,
    *,
    json_path: str | None = None,
    html_path: str | None = None,
) -> None:
    """Print a diagnosis.

    Args:
        diagnosis: what to print.
        recording: the run it is about.
        console: where to; by default standard error.
        json_path: where the JSON report lies, for the command that applies the fix.
        html_path: where the HTML report lies.
    """
    console = console or Console(stderr=True)
    page = write_page(diagnosis, recording, json_path, html_path)
    width = max(40, min(console.width, _WIDEST))

    @cache
    def chart(height: int) -> list[Text]:
        frame = min(width, 86) - 2
        ascii_only = console.options.ascii_only
        return loss_chart(recording, page.source, width=frame, height=height, ascii_only=ascii_only, marks=page.marks)

    for first, rest in _DETAILS:
        sheet = _Sheet(width, console)
        _write(page, chart(first.chart), sheet, first, rest)
        if len(sheet.lines) <= MOST_LINES:
            break
    while not sheet.lines[-1].plain:
        sheet.lines.pop()
    if len(sheet.lines) > MOST_LINES:
        sheet.lines[MOST_LINES - 1 :] = [Text(sheet.clean("… (the HTML report shows all)"), "dim")]
    for line in sheet.lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False, highlight=False, emoji=False)


class _Sheet:
    """Lines of a page as they come, wrapped to its width, in characters that the console can print."""

    def __init__(self, width: int, console: Console) -> None:
        self.width, self.console = width, console
        self.lines: list[Text] = []

    def add(self, *parts: Part, label: Part = "", hang: int = 0, indent: int = 0, most: int = 1000) -> None:
        """A paragraph, wrapped into at most `most` lines, its label to the left in a margin of `hang`.

        A margin never takes more than half of the line; a label that is too long for it gets its own.
        """
        head, body = self._text(label), self._text(*parts)
        hang = min(hang, (self.width - indent) // 2)
        width = self.width - indent - hang
        if head.cell_len > hang:
            head.truncate(self.width - indent, overflow="crop")
            self.lines.append(Text(" " * indent) + head)
            head = Text()
        rows = list(body.wrap(self.console, width, overflow="fold"))
        if len(rows) > most:
            rows = rows[:most]
            dots = self.clean(" …")
            rows[-1].truncate(width - len(dots), overflow="crop")
            rows[-1].rstrip()
            rows[-1].append(dots)
        for row in rows:
            row.rstrip()
            self.lines.append(Text(" " * indent) + head + Text(" " * (hang - head.cell_len)) + row)
            head = Text()

    def flow(self, *entries: Part, indent: int = 0, most: int = 2) -> None:
        """Entries side by side, broken into lines between them; an entry too long for a line is cut."""
        lines: list[Text] = []
        dot = Text(self.clean(" · "), "dim")
        for entry in map(self._text, entries):
            entry.truncate(self.width - indent, overflow="ellipsis" if not self.console.options.ascii_only else "crop")
            if lines and indent + lines[-1].cell_len + dot.cell_len + entry.cell_len <= self.width:
                lines[-1].append(dot).append(entry)
            else:
                lines.append(entry)
        self.lines.extend(Text(" " * indent) + line for line in lines[:most])

    def gap(self) -> None:
        """An empty line, never two in a row, never at the top."""
        if self.lines and self.lines[-1].plain.strip():
            self.lines.append(Text())

    def clean(self, text: str) -> str:
        """`text` on one line in characters that the console has and that do nothing to it."""
        return printable(text, self.console.encoding)

    def size(self, text: str) -> int:
        """The cells that `text` takes."""
        return cell_len(self.clean(text))

    def _text(self, *parts: Part) -> Text:
        text = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            text.append(self.clean(words), style)
        return text


def _write(page: Page, chart: Sequence[Text], sheet: _Sheet, first: _Detail, rest: _Detail) -> None:
    healthy = page.verdict == "healthy"
    word, style = _VERDICTS[page.verdict]
    sheet.add((word, style), "  ", (page.title, "bold"), most=2)
    sheet.flow(*((fact, "dim") for fact in page.facts), indent=2)
    sheet.add(page.summary, indent=2, most=first.explanation)
    for missing in page.missing:
        sheet.add(missing, label="· ", hang=2, indent=2, most=2)
    if chart:
        sheet.gap()
        sheet.lines.extend(Text("  ") + line for line in chart)
        sheet.gap()
    for k, finding in enumerate(page.findings[: first.findings]):
        if healthy:
            name = (f"{finding.id}  ", _SEVERITIES[finding.severity])
            sheet.add(finding.explanation, label=name, hang=sheet.size(finding.id) + 2, indent=2, most=2)
        else:
            rank = f"{k + 1}. " if len(page.findings) > 1 else ""
            _write_finding(finding, sheet, rest if k else first, rank)
    _write_rest(page, sheet, first)
    if page.following and not healthy:
        sheet.gap()
        for purpose, commands in page.following:
            sheet.add(purpose)
            # A command is to be copied, so no line break of ours goes into it.
            sheet.lines.extend(Text("  " + sheet.clean(c), "bold") for c in commands)


def _write_finding(finding: FindingText, sheet: _Sheet, detail: _Detail, rank: str) -> None:
    if detail.explanation > 1:
        sheet.gap()
    sheet.flow((f"{rank}{finding.id}", _SEVERITIES[finding.severity]), *((f, "dim") for f in finding.facts), most=3)
    if finding.quote and detail.evidence:
        sheet.add((finding.quote, "italic"), indent=4, most=1)
    sheet.add(finding.explanation, indent=2, most=detail.explanation)
    evidence = finding.evidence[: detail.evidence]
    margin = max((sheet.size(name) for name, _ in evidence), default=0) + 4
    for name, value in evidence:
        sheet.add(value, label=f"· {name}", hang=margin, indent=2, most=2)
    if detail.evidence and finding.remedies:
        sheet.gap()
    tables = detail.tables
    for remedy in finding.remedies[: detail.remedies]:
        _write_remedy(remedy, sheet, tables > 0, tables > 0 and detail.diffs)
        tables -= remedy.pairs is not None
    left = len(finding.remedies) - detail.remedies
    if detail.remedies and left > 0:
        sheet.add((f"and {left} more {'remedy' if left == 1 else 'remedies'}", "dim"), indent=2)


def _write_remedy(remedy: RemedyText, sheet: _Sheet, table: bool, diff: bool) -> None:
    style = _STATUSES[remedy.status]
    sheet.add(
        (remedy.what, "bold"),
        "  ",
        (remedy.outcome, style),
        label=(remedy.mark, style),
        hang=2,
        indent=2,
        most=3,
    )
    if table and remedy.pairs:
        sheet.lines.extend(Text(" " * 6) + line for line in _table(remedy.pairs, sheet))
    if remedy.advice:
        sheet.add((remedy.advice, "bold" if remedy.status == "verified" else ""), indent=4, most=3)
    if diff and remedy.diff and remedy.status == "verified":
        for line in remedy.diff.splitlines()[2:]:
            sheet.add((line, _DIFF.get(line[:1], "dim")), indent=6, most=1)


def _table(pairs: Pairs, sheet: _Sheet) -> Iterator[Text]:
    """The paired runs in columns; where there are too many the last pairs make room, the mean stays."""
    rows = ((pairs.title, pairs.columns), *pairs.rows)
    lines = [tuple(sheet.clean(c) for c in (name, *cells)) for name, cells in rows]
    widths = [max(cell_len(line[k]) for line in lines) + (3 if k else 0) for k in range(len(lines[0]))]
    shown = list(range(len(widths)))
    while len(shown) > 3 and sum(widths[k] for k in shown) > sheet.width - 6:
        del shown[-2]
    for line, style in zip(lines, ("dim", "", "bold"), strict=True):
        name = Text().append(line[0] + " " * (widths[0] - cell_len(line[0])), "dim")
        yield name.append("".join(" " * (widths[k] - cell_len(line[k])) + line[k] for k in shown[1:]), style)


def _write_rest(page: Page, sheet: _Sheet, detail: _Detail) -> None:
    """What stands below the findings: those left out, notes, checklist."""
    left = page.findings[detail.findings :]
    if left:
        sheet.gap()
        sheet.add((f"and {len(left)} more: ", "bold"), ", ".join(f.id for f in left), most=3)
    if page.notes:
        sheet.gap()
        for note in page.notes[: detail.notes]:
            sheet.add(note, label="· ", hang=2, most=2)
        if len(page.notes) > detail.notes:
            sheet.add((f"· and {len(page.notes) - detail.notes} more notes", "dim"))
    if page.checklist:
        sheet.gap()
        sheet.add(("Checked", "bold"))
    margin = max((sheet.size(c.topic) for c in page.checklist), default=0) + 4
    for item in page.checklist:
        mark, style = _CHECKS[item.ok]
        sheet.add(item.found, label=(f"{mark} {item.topic}", style), hang=margin, indent=2, most=detail.check)
