"""A search's report as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradwise.legible import duration, number
from gradwise.report.html import escaped, figure_html, write_document
from gradwise.report.tuning import best_of, headline, value_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

Figures = Sequence[tuple["go.Figure", str]]

_MOST = 20
_PILLS = {"✓": ("healthy", "✓ better"), "✗": ("inconclusive", "✗ not better"), "·": ("inconclusive", "· best")}


def write_tuning_html(path: str | os.PathLike[str], report: Mapping[str, Any], figures: Figures) -> None:
    """Write the report as one self-contained file.

    Args:
        path: where to; an existing file is replaced.
        report: what was found, as the JSON report has it.
        figures: pictures of it, each with its caption.

    Raises:
        OSError: where the file cannot be written.
    """
    command = shlex.join(report["command"])
    write_document(path, f"tune: {command}", _body(command, report, figures))


def _body(command: str, report: Mapping[str, Any], figures: Figures) -> Iterator[str]:
    words, _ = headline(report)
    mark, _, rest = words.partition(" ")
    kind, pill = _PILLS.get(mark, ("sick", "✗ no value"))
    yield f'<header><span class="verdict {kind}">{pill}</span><h1><code>{escaped(command)}</code></h1>'
    yield f'<p class="soft">{" · ".join(map(escaped, _facts(report)))}</p></header>'
    said = rest if mark in _PILLS else words
    yield f'<p class="summary">{escaped(said[:1].upper() + said[1:])}</p>'
    yield from _pairs(report)
    winner = report["winner"]
    if winner is not None:
        yield "<h3>The winner</h3>"
        if winner["changes"]:
            yield f"<p>{escaped(winner['changes'])}</p>"
        yield f"<pre>{escaped(winner['command'])}</pre>"
        if winner.get("diff"):
            yield f'<pre class="diff">{escaped(winner["diff"])}</pre>'
    if figures:
        yield "<h3>The search in figures</h3>"
    for figure, caption in figures:
        yield figure_html(figure, caption)
    yield from _trials(report)
    notes = [*([f"The search ended early: {report['ended']}."] if report["ended"] else []), *report["notes"]]
    if notes:
        yield f"<h3>Notes</h3><ul>{''.join(f'<li>{escaped(n)}</li>' for n in notes)}</ul>"
    yield from _method(report)
    yield '<footer class="soft">Written by gradwise.</footer>'


def _facts(report: Mapping[str, Any]) -> Iterator[str]:
    trials = report["trials"]
    counts = {state: sum(t["state"] == state for t in trials) for state in ("complete", "pruned", "failed")}
    kinds = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    yield f"{len(trials)} trials ({kinds}) by {report['method']['name']}" if kinds else "no trials"
    yield f"selected on {report['selected_on']}"
    if report["own"] is not None:
        yield f"own settings: {number(report['own']['value'], 4)} in {duration(report['own']['seconds'])}"
    if report["test"] is not None:
        yield f"test score, read once, of the chosen one retrained: {number(report['test']['value'], 4)}"


def _pairs(report: Mapping[str, Any]) -> Iterator[str]:
    confirmed = report["confirmed"]
    if confirmed is None or not confirmed["pairs"]:
        return
    head = "".join(f"<th>seed +{k}</th>" for k in range(1, len(confirmed["pairs"]) + 1))
    rows = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{escaped(number(pair[k], 4))}</td>' for pair in confirmed['pairs'])}</tr>"
        for k, name in enumerate(("own settings", "winner"))
    )
    yield (
        f'<div class="scroll"><table class="pairs"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    if confirmed["reason"]:
        yield f"<p>{escaped(confirmed['reason'])}</p>"


def _trials(report: Mapping[str, Any]) -> Iterator[str]:
    shown = best_of(report["trials"], report["maximize"], _MOST)
    if not shown:
        return
    names = list(dict.fromkeys(name for t in shown for name in t["config"]))
    head = "".join(f"<th>{escaped(c)}</th>" for c in ("trial", "value", *names, "steps", "time"))
    rows = []
    for t in shown:
        cells = [number(t["value"], 4), *(value_text(t["config"].get(n)) for n in names), f"{t['steps']:,}"]
        cells.append(duration(t["seconds"]))
        rows.append(f"<tr><th>{t['number']}</th>{''.join(f'<td>{escaped(c)}</td>' for c in cells)}</tr>")
    left = sum(t["state"] == "complete" for t in report["trials"]) - len(shown)
    yield f"<h3>The best trials{f' (of {len(shown) + left})' if left > 0 else ''}</h3>"
    yield f'<div class="scroll"><table class="pairs plain"><thead><tr>{head}</tr></thead><tbody>'
    yield f"{''.join(rows)}</tbody></table></div>"
    problems = list(dict.fromkeys(t["problem"] for t in report["trials"] if t.get("problem")))
    if problems:
        yield f"<p>Trials that failed:</p><ul>{''.join(f'<li>{escaped(p)}</li>' for p in problems[:5])}</ul>"


def _method(report: Mapping[str, Any]) -> Iterator[str]:
    """Every setting that the method itself has: none had to be chosen, all can be seen."""
    method = report["method"]
    rows = [("method", method["name"]), *((k, str(v)) for k, v in method["settings"].items()), ("seed", method["seed"])]
    if method["pruning"] != "none":
        rows += [("pruning", method["pruning"]), *((k, str(v)) for k, v in method["pruning_settings"].items())]
    study = report["study"]
    rows += [("study", study["name"]), ("kept in", study["store"])]
    pairs = "".join(f"<dt>{escaped(str(k))}</dt><dd>{escaped(str(v))}</dd>" for k, v in rows)
    yield f'<h3>How it was searched</h3><dl class="evidence">{pairs}</dl>'
