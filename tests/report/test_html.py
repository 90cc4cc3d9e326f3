import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from samples import ALL, lr_too_high, trials
from strategies import diagnoses

from gradwise.report import html
from gradwise.report.html import notebook_html, write_html

VOID = {"meta", "br", "path", "rect", "circle", "line"}


class Document(HTMLParser):
    """A document taken apart: elements, visible text, scripts; complains where tags do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("html")
    for name, make in ALL.items():
        write_html(folder / f"{name}.html", *make())
    write_html(folder / "trials.html", *lr_too_high(), trials())
    return {path.stem: path.read_text("utf-8") for path in folder.iterdir()}


@pytest.fixture(scope="module")
def parsed(documents):
    return {name: Document(source) for name, source in documents.items()}


@pytest.mark.parametrize("name", ALL)
def test_the_file_needs_nothing_else(parsed, name):
    for tag, attributes in parsed[name].tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action", "onload", "onclick", "onerror"} & set(attributes)


@pytest.mark.parametrize("name", ALL)
def test_only_our_two_scripts_run(documents, parsed, name):
    policy = next(a["content"] for t, a in parsed[name].tags if a.get("http-equiv") == "Content-Security-Policy")
    running = [text for kind, text in parsed[name].scripts if kind is None]
    hashes = [f"sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}" for s in running]
    assert re.findall(r"'(sha256-[^']+)'", policy) == hashes
    assert len(hashes) == 2
    assert "default-src 'none'" in policy
    assert documents[name].count("plotly.js v") == 1


@pytest.mark.parametrize("name", ALL)
def test_figures_are_data(parsed, name):
    figures = [json.loads(text) for kind, text in parsed[name].scripts if kind == "application/json"]
    assert all(f["data"] for f in figures)
    assert bool(figures) == (name != "never_stepped")


def test_what_a_user_names_is_only_text(documents, parsed):
    evil = "<script>alert(1)</script>"
    assert parsed["hostile"].text.count(evil) >= 8
    assert "\x1b" not in documents["hostile"]
    assert "\u202e" not in documents["hostile"]
    assert "träin_日本語🎉.py" in parsed["hostile"].text
    shown = Document(notebook_html(*ALL["hostile"]()))
    assert shown.text.count(evil) >= 8


def test_data_cannot_end_its_element():
    class Figure:
        layout = type("Layout", (), {"height": None})()

        def to_json(self):
            return json.dumps({"data": ["</script><script>alert(1)</script>"]})

    document = Document(html.figure_html(Figure(), "a figure"))
    assert [json.loads(text)["data"] for _, text in document.scripts] == [["</script><script>alert(1)</script>"]]


def test_it_says_what_the_terminal_says(parsed):
    for name, make in ALL.items():
        found, _ = make()
        if name == "hostile":
            continue
        text = parsed[name].text
        assert found.summary in text
        for finding in found.findings:
            assert finding.id in text
            assert finding.explanation in text
            assert all(r.advice in text for r in finding.remedies if r.status != "failed")
            assert all(line in text for r in finding.remedies for line in r.diff.splitlines())
        assert all(note in text for note in found.notes)
        assert all(c.found in text for c in found.checklist)


def test_trials_are_drawn_with_the_remedy_they_tried(documents):
    sections = re.findall(r'<section class="remedy (\w+)">(.*?)</section>', documents["trials"], re.DOTALL)
    assert [(status, "one pair of curves per seed" in body) for status, body in sections] == [
        ("verified", True),
        ("failed", False),
        ("suggested", False),
    ]
    assert "one pair of curves per seed" not in documents["lr_too_high"]


@pytest.mark.parametrize("count", [2, 7])
def test_every_optimizer_s_norms_are_shown_up_to_a_handful(tmp_path, count):
    found, run = ALL["healthy"]()
    series = {(name, s): values for (name, _), values in run.series.items() for s in range(count)}
    write_html(tmp_path / "report.html", found, replace(run, series=series))
    text = Document((tmp_path / "report.html").read_text("utf-8")).text
    assert re.findall(r"Optimizer (\d): norms", text) == [str(k) for k in range(min(count, 4))]
    assert ("Of 7 optimizers 4 are shown." in text) == (count == 7)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_html(tmp_path / "nowhere" / "report.html", *lr_too_high())


@settings(max_examples=30, deadline=None)
@given(diagnoses)
def test_any_diagnosis_makes_a_well_formed_cell(diagnosis):
    document = Document(notebook_html(diagnosis, lr_too_high()[1]))
    assert diagnosis.verdict in document.text


@pytest.mark.parametrize("name", ALL)
def test_the_notebook_cell_is_light_and_has_no_scripts(name):
    cell = notebook_html(*ALL[name]())
    document = Document(cell)
    assert len(cell) < 60_000
    assert not document.scripts
    assert any(tag == "svg" for tag, _ in document.tags) == (name != "never_stepped")
    # Its style reaches nothing else in the notebook.
    style = re.search(r"<style>(.*?)</style>", cell, re.DOTALL)[1]
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", re.sub(r"@media[^{]*\{", "", style))
    assert rules
    assert all(selector.strip().startswith(".gradwise") for rule in rules for selector in rule.split(","))


def test_the_svg_breaks_where_the_loss_is_not_finite():
    cell = notebook_html(*ALL["non_finite"]())
    coordinates = [float(x) for x in re.findall(r"[ML]([\d.]+) ", cell)]
    shaded = float(re.search(r'<rect x="([\d.]+)"', cell)[1])
    assert max(coordinates) <= shaded + 1
    assert "nan" not in cell.partition("<svg")[2].partition("</svg>")[0].lower()
