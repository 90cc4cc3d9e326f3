"""The documentation tells the truth: its links lead somewhere, its commands exist, its generated pages are current."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gradwise.diagnosis.causes import LEADS_TO

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [p for n in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG") if (p := ROOT / f"{n}.md").exists()]
PAGES += sorted(DOCS.rglob("*.md"))
FINDINGS = sorted(LEADS_TO)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tool(file: str) -> ModuleType:
    """A script of the docs as a module."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, DOCS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    text = page.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page: its headings as GitHub names them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken, f"{name(page)}: {broken}"


@pytest.mark.parametrize(
    "page", ["cli.md", "optimizers.md", "signals.md", "schedules.md", "regularization.md", "curvature.md"]
)
def test_reference_is_what_the_code_says(page: str) -> None:
    written = (DOCS / "reference" / page).read_text("utf-8")
    assert written == tool("make_reference.py").PAGES[page](), "run: python docs/make_reference.py"


def commands() -> Iterator[tuple[str, str]]:
    """Every gradwise command that a page shows."""
    for page in PAGES:
        for block in (*blocks(page, "sh"), *blocks(page, "yaml")):
            for line in block.splitlines():
                found = re.search(r"(?:^|&& |run: |\$ |bin/)(gradwise .*)", line)
                if found:
                    yield name(page), found[1].partition(" && ")[0]


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_exist_with_their_options(page: str, line: str) -> None:
    reference = (DOCS / "reference" / "cli.md").read_text("utf-8")
    words = shlex.split(line)
    command, rest = " ".join(words[:2]), words[2:]
    if rest and f"## `{command} {rest[0]}`" in reference:
        command, rest = f"{command} {rest[0]}", rest[1:]
    assert f"## `{command}`" in reference, f"{page}: there is no `{command}`"
    section = reference.partition(f"## `{command}`")[2].partition("\n## ")[0]
    known: dict[str, bool] = {}
    for row in re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE):
        takes_value = " " in re.findall(r"`([^`]*)`", row)[0]
        known |= {written.split()[0]: takes_value for written in re.findall(r"`([^`]*)`", row)}
    passed_on = "SCRIPT" in section
    while rest:
        word, *rest = rest
        if word.startswith("-"):
            assert word in known, f"{page}: {command} has no option {word}"
            rest = rest[known[word] :]
        elif passed_on:
            break


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_has_a_page_with_its_figure(finding: str) -> None:
    page = DOCS / "findings" / f"{finding}.md"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {finding}\n")
    assert f"({finding}.md)" in (DOCS / "findings" / "index.md").read_text("utf-8")
    assert f"(../figures/{finding}.svg)" in text
    script, *arguments = tool("make_figures.py").RUNS[finding]
    command = " ".join((script, *arguments))
    assert f"<title>{command}</title>" in (DOCS / "figures" / f"{finding}.svg").read_text("utf-8")
    if script.endswith(".py"):
        shown = command if script.startswith("clinic/") else f"examples/{command}"
        assert f"python {shown}" in " ".join(text.split())


def test_no_page_is_about_a_finding_that_is_not_there() -> None:
    pages = {p.stem for p in (DOCS / "findings").glob("*.md")} - {"index"}
    assert pages == set(FINDINGS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_in_pages_is_code(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "python"):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, {}, name(page), str(page), 0)
            assert doctest.DocTestRunner().run(test).failed == 0
        else:
            ast.parse(block)


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))
            waiting += [t for target in targets if (t := (page.parent / target).resolve()).is_relative_to(DOCS)]
    assert set(DOCS.rglob("*.md")) == seen
