"""The house keeps its shape: imports point one way, names don't collide, files fit in the head."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

import gradwise

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "gradwise"
MODULES = sorted(SRC.rglob("*.py"))

GROUND = {"legible", "recording", "schedules"}
EVIDENCE = GROUND | {"interventions"}
# What each room may import. The ground floor knows nothing of each other; `diagnosis` never sees a live process and
# `trials` has no opinions, so neither knows the other; `search` joins them; then the rest, in this order.
MAY_IMPORT: dict[str, set[str]] = {
    "legible": set(),
    "schedules": set(),
    "regularization": set(),
    "curvature": set(),
    "optim": {"schedules"},  # a rate may be a schedule
    "recording": set(),
    "interventions": {"schedules"},
    "probes": {"recording"},
    "diagnosis": EVIDENCE,
    "trials": EVIDENCE | {"probes", "curvature", "regularization"},  # what of a model is a weight is said once
    "search": EVIDENCE | {"diagnosis", "trials"},
    "curves": {"legible", "recording"},
    "figures": EVIDENCE | {"curves", "diagnosis"},
    "report": EVIDENCE | {"curves", "diagnosis", "figures"},
    "session": EVIDENCE | {"diagnosis", "probes", "report", "search"},
    "finder": EVIDENCE | {"diagnosis", "search"},  # the range test in the process that trains
    "batched": {"schedules", "optim", "interventions", "search"},  # many trainings at once, as an engine of the search
    "tuner": {"search", "batched"},  # the search over a function in this very process
    # The experiments are built from everything below them.
    "lab": EVIDENCE
    | {"optim", "regularization", "curvature", "diagnosis", "trials", "search", "curves", "figures"}
    | {"session", "finder", "tuner"},
    "cli": EVIDENCE | {"diagnosis", "trials", "search", "figures", "report", "session", "lab", "__init__"},
    "__main__": {"cli"},
    "__init__": {
        "batched",
        "curvature",
        "figures",
        "finder",
        "interventions",
        "optim",
        "regularization",
        "schedules",
        "session",
        "tuner",
    },
}
# The rooms that live in the process that trains; all others must load without torch.
WITH_TORCH = {"optim", "regularization", "curvature", "probes", "trials", "session", "lab", "batched"}
# The one file of a room that loads without torch which is imported only to put a schedule on an optimizer.
ADAPTER = SRC / "schedules" / "adapter.py"

MOST_LINES, FEW_BEYOND = 600, 400


@dataclass(frozen=True)
class Import:
    """One import of a gradwise module: where it stands, what it names."""

    path: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.target}"


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.relative_to(ROOT)}:{node.lineno}: relative imports hide the room"
            module = node.module or ""
            if module == "gradwise":
                yield from (Import(path, node.lineno, f"gradwise.{_member(alias.name)}") for alias in node.names)
            else:
                yield Import(path, node.lineno, module)


def _member(name: str) -> str:
    return name if (SRC / name).is_dir() or (SRC / f"{name}.py").exists() else "__init__"


def module_level_imports(path: Path) -> Iterator[Import]:
    """What importing a file imports, leaving out what only the type checker sees."""

    def walk(body: list[ast.stmt]) -> Iterator[Import]:
        for node in body:
            if isinstance(node, ast.Import):
                yield from (Import(path, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield Import(path, node.lineno, node.module or "")
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                    continue
                for field in ("body", "orelse", "finalbody"):
                    yield from walk(getattr(node, field, []))
                for handler in getattr(node, "handlers", []):
                    yield from walk(handler.body)

    yield from walk(ast.parse(path.read_text("utf-8")).body)


def test_every_room_has_its_place_in_the_house() -> None:
    unplaced = {room_of(path) for path in MODULES} - set(MAY_IMPORT)
    assert not unplaced, f"say in MAY_IMPORT what {sorted(unplaced)} may import"


def test_the_table_itself_points_one_way() -> None:
    order = list(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        if room != "cli":  # which prints the version
            assert all(order.index(a) < order.index(room) for a in allowed), f"{room} would import from above it"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in MODULES:
        room = room_of(path)
        for each in imports(path):
            package, _, rest = each.target.partition(".")
            if package == "gradwise":
                target = rest.partition(".")[0] or "__init__"
                if target != room and target not in MAY_IMPORT.get(room, set()):
                    wrong.append(
                        f"{each}, but {room} may import only {sorted(MAY_IMPORT.get(room, set())) or 'nothing'}"
                    )
    assert not wrong, "\n".join(wrong)


def test_torch_is_imported_at_module_level_by_nothing_that_must_load_without_it() -> None:
    wrong = [
        str(each)
        for path in MODULES
        if room_of(path) not in WITH_TORCH and path != ADAPTER
        for each in module_level_imports(path)
        if each.target.partition(".")[0] == "torch"
    ]
    assert not wrong, "\n".join(wrong)


def test_what_runs_before_the_script_imports_the_standard_library_only() -> None:
    # Loaded by the injected sitecustomize in every watched process: an OMP_NUM_THREADS that the script sets must count.
    allowed = {*sys.stdlib_module_names, "gradwise"}
    seen: set[Path] = set()
    waiting = [
        SRC / "trials" / "child.py",
        SRC / "trials" / "inject" / "sitecustomize.py",
        SRC / "recording" / "wire.py",
    ]
    wrong = []
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for each in module_level_imports(path):
            package, _, rest = each.target.partition(".")
            if package not in allowed:
                wrong.append(str(each))
            elif package == "gradwise":
                inner = SRC.joinpath(*rest.split("."))
                waiting += [p for p in (inner.with_suffix(".py"), inner / "__init__.py") if p.exists()]
    assert not wrong, "\n".join(wrong)


def test_no_room_shares_its_name_with_a_public_function() -> None:
    rooms = {room_of(path) for path in MODULES}
    for name in [*gradwise.__all__, *gradwise._PUBLIC]:
        if name in rooms:
            assert getattr(gradwise, name) is import_module(f"gradwise.{name}"), f"gradwise.{name} is shadowed"


def test_files_fit_in_the_head() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    long = {str(path): n for path, n in lines.items() if n > FEW_BEYOND}
    assert all(n <= MOST_LINES for n in long.values()), f"more than {MOST_LINES} lines: {long}"
    assert len(long) <= len(lines) / 20, f"too many files of more than {FEW_BEYOND} lines: {long}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_what_is_public_is_described(path: Path) -> None:
    wanting = []
    tree = ast.parse(path.read_text("utf-8"))
    if "TODO" in (ast.get_docstring(tree) or "TODO"):
        wanting.append(f"{path.relative_to(ROOT)}:1 has no docstring that says what the module is")

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
            if not ast.get_docstring(node) and not overload:
                wanting.append(f"{path.relative_to(ROOT)}:{node.lineno} {prefix}{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    assert not wanting, "\n".join(wanting)


def test_nothing_names_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    places = (f"{ROOT}/", f"{Path.home()}/", f"{Path(sys.prefix).resolve()}/", "../shared/")
    foreign = re.compile("|".join(rf"(?<![\w.}}]){re.escape(place)}" for place in places))
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        wrong += [
            f"{name}:{k}: {line.strip()[:120]}" for k, line in enumerate(text.splitlines(), 1) if foreign.search(line)
        ]
    assert not wrong, "\n".join(wrong)
