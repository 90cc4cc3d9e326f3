"""The report as one HTML file that needs nothing else, with interactive figures; a light form for notebooks.

Names, paths, source lines and explanations come from the user's surroundings: all of them are escaped here, and
the document's content security policy runs no script but its own two and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from gradwise import figures
from gradwise.diagnosis.findings import Diagnosis, Finding
from gradwise.legible import printable
from gradwise.recording.recording import Recording
from gradwise.recording.signals import GRADIENT, LOSS, LR, PARAMETER, UPDATE, VALIDATION
from gradwise.report.page import FindingText, Page, Pairs, RemedyText, write_page
from gradwise.report.svg import loss_svg

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WORDS = {"healthy": "✓ healthy", "sick": "✗ sick", "inconclusive": "? inconclusive"}
_MOST_OPTIMIZERS = 4
_CHECKS = {True: ("yes", "✓"), False: ("no", "✗"), None: ("", "?")}


def write_html(
    path: str | os.PathLike[str],
    diagnosis: Diagnosis,
    recording: Recording,
    trials: Sequence[Recording] = (),
    *,
    json_path: str | None = None,
) -> None:
    """Write the report as one self-contained file: no network, no other file.

    Args:
        path: where to; an existing file is replaced.
        diagnosis: what to report.
        recording: the run it is about.
        trials: recordings of the trial runs, for the paired curves of each remedy.
        json_path: where the JSON report lies, for the command that applies the fix.

    Raises:
        OSError: where the file cannot be written.
    """
    page = write_page(diagnosis, recording, json_path, str(path))
    title = f"{page.verdict}: {page.title}"
    write_document(path, title, _body(page, diagnosis, recording, trials))


def write_document(path: str | os.PathLike[str], title: str, body: Iterable[str]) -> None:
    """Write one self-contained HTML file: our look, Plotly, and nothing from anywhere else.

    Args:
        path: where to.
        title: plain text.
        body: pieces of HTML, in which all foreign text is escaped.

    Raises:
        OSError: where the file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    scripts = (get_plotlyjs(), _resource("document.js"))
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    document = "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>",
            f"<style>\n{_resource('document.css')}{_resource('page.css')}</style>\n</head>\n<body>",
            '<main class="gradwise">',
            *body,
            "</main>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        )
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(document)


def notebook_html(diagnosis: Diagnosis, recording: Recording) -> str:
    """The report for a notebook's output cell: the same words, the loss as a small SVG, no scripts."""
    page = write_page(diagnosis, recording)
    parts = (
        *_head(page),
        loss_svg(recording, page.source, page.marks),
        *(_finding(f, k, len(page.findings)) for k, f in enumerate(page.findings)),
        *_rest(page),
    )
    return f'<style>{_resource("page.css")}</style><div class="gradwise">{"".join(parts)}</div>'


def _body(page: Page, diagnosis: Diagnosis, recording: Recording, trials: Sequence[Recording]) -> Iterator[str]:
    yield from _head(page)
    if recording.sources(LOSS) or recording.sources(VALIDATION):
        svg = loss_svg(recording, page.source, page.marks)
        yield figure_html(
            figures.loss_figure(recording, page.marks),
            "The loss over the optimizer's steps, as recorded (faint) and smoothed.",
            svg,
        )
    for k, (text, finding) in enumerate(zip(page.findings, diagnosis.findings, strict=True)):
        yield _finding(text, k, len(page.findings), _trial_figures(finding, trials))
    yield from _rest(page)
    yield from _run_figures(recording, page.source)
    began = datetime.fromtimestamp(recording.run.started).strftime("%-d %B %Y, %H:%M") if recording.run.started else ""
    yield f'<footer class="soft">Written by gradwise{f"; the run began on {began}" if began else ""}.</footer>'


def _head(page: Page) -> Iterator[str]:
    yield f'<header><span class="verdict {page.verdict}">{_WORDS[page.verdict]}</span>'
    yield f"<h1><code>{escaped(page.title)}</code></h1>"
    yield f'<p class="soft">{" · ".join(map(escaped, page.facts))}</p></header>'
    yield f'<p class="summary">{escaped(page.summary)}</p>'
    if page.missing:
        yield f"<ul>{''.join(f'<li>{escaped(m)}</li>' for m in page.missing)}</ul>"


def _finding(finding: FindingText, index: int, count: int, trials: Sequence[str] = ()) -> str:
    rank = f"{index + 1}. " if count > 1 else ""
    evidence = "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in finding.evidence)
    curves = [*trials, *[""] * (len(finding.remedies) - len(trials))]
    return "".join(
        (
            f'<article class="finding {finding.severity}"><h2>{rank}{escaped(finding.id)}</h2>',
            f'<p class="soft">{" · ".join(map(escaped, finding.facts))}</p>',
            f"<pre>{escaped(finding.quote)}</pre>" if finding.quote else "",
            f"<p>{escaped(finding.explanation)}</p>",
            f'<dl class="evidence">{evidence}</dl>' if evidence else "",
            *(_remedy(r, c) for r, c in zip(finding.remedies, curves, strict=True)),
            "</article>",
        )
    )


def _remedy(remedy: RemedyText, curves: str) -> str:
    return "".join(
        (
            f'<section class="remedy {remedy.status}"><p><span class="mark">{remedy.mark}</span> ',
            f'<b>{escaped(remedy.what)}</b> <span class="outcome">{escaped(remedy.outcome)}</span></p>',
            _table(remedy.pairs) if remedy.pairs else "",
            f"<pre>{escaped(remedy.advice)}</pre>" if remedy.advice else "",
            f'<pre class="diff">{escaped(remedy.diff)}</pre>' if remedy.diff else "",
            curves,
            "</section>",
        )
    )


def _table(pairs: Pairs) -> str:
    head = "".join(f"<th>{escaped(c)}</th>" for c in (pairs.title, *pairs.columns))
    rows = "".join(
        f"<tr><th>{escaped(name)}</th>{''.join(f'<td>{escaped(c)}</td>' for c in cells)}</tr>"
        for name, cells in pairs.rows
    )
    return f'<div class="scroll"><table class="pairs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _rest(page: Page) -> Iterator[str]:
    if page.notes:
        yield f"<h3>Notes</h3><ul>{''.join(f'<li>{escaped(n)}</li>' for n in page.notes)}</ul>"
    if page.checklist:
        rows = "".join(
            f'<tr><td class="{_CHECKS[c.ok][0]}">{_CHECKS[c.ok][1]}</td>'
            f"<td>{escaped(c.topic)}</td><td>{escaped(c.found)}</td></tr>"
            for c in page.checklist
        )
        yield f'<h3>Checked</h3><table class="check">{rows}</table>'
    for purpose, commands in page.following:
        lines = "\n".join(map(escaped, commands))
        yield f"<h3>{escaped(purpose.rstrip(':'))}</h3><pre>{lines}</pre>"


def _run_figures(recording: Recording, source: int) -> Iterator[str]:
    """The rates, and the norms of each optimizer, that of the page first."""
    norms = {s for signal in (GRADIENT, UPDATE, PARAMETER) for s in recording.sources(signal)}
    if recording.sources(LR) or norms:
        yield "<h3>The run in figures</h3>"
    if recording.sources(LR):
        yield figure_html(figures.lr_figure(recording), "The learning rate of each parameter group, as it was used.")
    shown = sorted(norms, key=lambda s: (s != source, s))[:_MOST_OPTIMIZERS]
    for each in shown:
        whose = f"Optimizer {each}: " if len(norms) > 1 else ""
        if each in recording.sources(UPDATE) and each in recording.sources(PARAMETER):
            caption = f"{whose}the size of each update against the size of the tensor it updates."
            yield figure_html(figures.update_ratio_figure(recording, each), caption[0].upper() + caption[1:])
        caption = f"{whose}norms of every tensor's gradient, update and value; a norm of zero is not drawn."
        yield figure_html(figures.norms_figure(recording, each), caption[0].upper() + caption[1:])
    if len(shown) < len(norms):
        yield f"<p>Of {len(norms)} optimizers {len(shown)} are shown.</p>"


def _trial_figures(finding: Finding, trials: Sequence[Recording]) -> list[str]:
    """The paired curves of each remedy; "" where no run of it was kept."""
    found = []
    for remedy in finding.remedies:
        before, after = figures.paired(remedy, trials)
        caption = "The script as it is and with the remedy, one pair of curves per seed."
        figure = figures.trials_figure(finding, remedy, trials) if before and after else None
        found.append(figure_html(figure, caption) if figure is not None else "")
    return found


def figure_html(figure: go.Figure, caption: str, placeholder: str = "") -> str:
    """A figure with its caption; `placeholder` is shown until it is drawn."""
    # "<" is the one character by which data could end its element (Plotly escapes it too, today).
    data = figure.to_json().replace("<", "\\u003c")
    height = figure.layout.height or figures.TEMPLATE["layout"]["height"]
    return (
        f'<figure><div class="figure" style="min-height:{height}px">{placeholder}'
        f'<script type="application/json">{data}</script></div><figcaption>{escaped(caption)}</figcaption></figure>'
    )


def escaped(text: str) -> str:
    """Text from anywhere as HTML that shows it and does nothing else."""
    return html.escape(printable(text))


def _resource(name: str) -> str:
    return files("gradwise.report").joinpath(name).read_text("utf-8")
