"""What a claim's report says, on the terminal, as HTML and as Markdown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from rich.console import Console

from gradwise.report.claims import (
    markdown,
    md_summary,
    render_claim,
    render_list,
    write_claims_html,
    write_claims_json,
)

CLAIM: dict[str, Any] = {
    "id": "X99", "title": "A <toy>", "claim": "More *is* more | always.", "source": "D9", "quick": True,
    "setup": "`f(a_b)` with *care*.", "seeds": [0, 1, 2], "cells": ["a"], "lacking": 2,
    "verdict": {
        "word": "holds with conditions", "why": "",
        "statements": [
            {"text": "It is better: by 0.1 [0.05, 0.15].", "held": True, "condition": "for η < 1 only"},
            {"text": "It is quicker.", "held": None, "condition": ""},
        ],
    },
    "tables": [{"title": "Scores", "rows": [["", "score", "what happened in words"],
                                            ["a | b", "0.5", "a long story about everything that happened"]]}],
    "figures": {"curve": "Curves <b>"}, "notes": ["Decoded from JPEG."],
    "made": {"gradwise": ["1"], "torch": ["2"], "processor": ["CPU"], "threads": ["1"], "dates": ["2026-01-02"],
             "seconds": 61.0},
}  # fmt: skip


def figure() -> go.Figure:
    made = go.Figure(layout={"xaxis": {"title": "epoch"}})
    made.add_scatter(x=[0, 1], y=[0, 1], name="a", mode="lines")
    return made


def printed(claim: dict[str, Any], width: int = 80, **more: Any) -> str:
    file = io.StringIO()
    render_claim(claim, {"curve": figure()}, Console(file=file, width=width, **more))
    return file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_terminal_says_it_all(width: int) -> None:
    text = " ".join(printed(CLAIM, width).split())
    for said in (
        "X99 A <toy> quick form, 3 seeds", "claim: More *is* more | always.", "Decoded from JPEG.",
        "✓ It is better: by 0.1 [0.05, 0.15]. — for η < 1 only", "? It is quicker.", "X99 holds with conditions",
        "Curves <b> (quick form)", "2 runs are not there yet", "in 1 min 01 s of one thread (CPU, torch 2,",
    ):  # fmt: skip
        assert said in text


def test_a_claim_without_runs_has_no_verdict() -> None:
    empty = {**CLAIM, "verdict": None, "tables": [], "seeds": [], "made": {}, "figures": {}}
    assert "X99 has no complete seed yet: 2 runs are not there yet" in printed(empty)
    assert "not yet run" in markdown(empty, {})


def test_html_shows_foreign_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "claims.html"
    write_claims_html(path, [(CLAIM, {"curve": figure()})])
    text = path.read_text("utf-8")
    assert "A &lt;toy&gt;" in text
    assert "<toy>" not in text
    assert "Curves &lt;b&gt; — quick form" in text
    assert "<code>f(a_b)</code>" in text
    assert "default-src 'none'" in text, "nothing is fetched from anywhere"


def test_markdown_survives_what_markdown_means() -> None:
    page = markdown(CLAIM, {"curve": "figures/x99-curve.svg"})
    assert "# X99: A \\<toy\\>" in page
    assert "More \\*is\\* more \\| always." in page
    assert "`f(a_b)` with \\*care\\*." in page, "code stays code"
    assert "| a \\| b | 0.5 | a long story" in page
    assert "![Curves \\<b\\>](figures/x99-curve.svg)" in page
    assert "— quick form" in page
    assert "gradwise claims X99 --quick\n" in page
    assert md_summary([CLAIM], "docs/").splitlines()[2] == (
        "| [X99](docs/x99.md) | A \\<toy\\> | holds with conditions | quick form, 3 seeds |"
    )


def test_json_is_one_object_or_a_list(tmp_path: Path) -> None:
    write_claims_json(tmp_path / "one.json", [CLAIM])
    write_claims_json(tmp_path / "two.json", [CLAIM, CLAIM])
    assert json.loads((tmp_path / "one.json").read_text("utf-8")) == CLAIM
    assert json.loads((tmp_path / "two.json").read_text("utf-8")) == [CLAIM, CLAIM]


def test_words_and_figures_in_tables_are_not_broken() -> None:
    rows = [["", "a rather long heading", "b"], ["first and second", "0.1234 [0.1, 0.2]", "1e-30"]]
    text = printed({**CLAIM, "tables": [{"title": "t", "rows": rows}]}, width=50)
    assert "0.1234 [0.1, 0.2]" in text
    assert "1e-30" in text


def test_the_list_fits_on_narrow_terminals() -> None:
    file = io.StringIO()
    row = {"id": "X1", "title": "Something", "time": ["6 s", "1 h 00 min"], "needs": "cifar10", "verdict": "holds"}
    render_list([row], Console(file=file, width=60))
    assert "X1" in file.getvalue()
    assert "cifar10" in file.getvalue()
