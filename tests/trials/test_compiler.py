"""Torch's compiler is left out of a process until something asks for it, and is the real one from then on."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gradwise.trials import compiler

PACKAGE = """
import stand_in_for_torch.below
loads = stand_in_for_torch.below.loads = stand_in_for_torch.below.loads + 1
def disable(fn=None, recursive=True, *, wrapping=True, reason=None):
    return ("disabled", fn, recursive, wrapping, reason)
def graph_break(msg=""):
    return "broken"
def explain():
    return "explained"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package whose loading is put off."""
    folder = tmp_path / "stand_in_for_torch" / "compiler"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder.parent / "below.py").write_text("loads = 0")
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "config.py").write_text("depth = 8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compiler, "NAME", "stand_in_for_torch.compiler")
    before = list(sys.meta_path)
    compiler.put_off()
    yield folder
    sys.meta_path[:] = before
    for name in [n for n in sys.modules if n.partition(".")[0] == "stand_in_for_torch"]:
        del sys.modules[name]


def imported() -> ModuleType:
    return importlib.import_module("stand_in_for_torch.compiler")


def loads() -> int:
    return importlib.import_module("stand_in_for_torch.below").loads


def test_what_optimizers_ask_loads_nothing(package: Path) -> None:
    module = imported()
    module.graph_break()
    step = module.disable(lambda a, b: a + b, True, wrapping=False)
    assert step(1, b=2) == 3
    assert (module.__name__, module.__spec__.name) == ("stand_in_for_torch.compiler",) * 2
    assert Path(str(module.__file__)).parent == package
    assert loads() == 0
    assert not any(isinstance(finder, compiler._Finder) for finder in sys.meta_path)


@pytest.mark.parametrize(
    "asked",
    [
        lambda module: module.explain() == "explained",
        lambda module: importlib.import_module("stand_in_for_torch.compiler.config").depth == 8,
        lambda module: "explain" in dir(module),
        lambda module: module.disable(print, reason="mine") == ("disabled", print, True, True, "mine"),
        lambda module: module.disable(recursive=False) == ("disabled", None, False, True, None),
    ],
    ids=["a function", "a submodule", "a list", "leave given by a script", "leave for all within"],
)
def test_any_other_question_makes_it_the_real_one(package: Path, asked) -> None:
    module = imported()
    assert loads() == 0
    assert asked(module)
    assert loads() == 1
    assert imported() is module
    assert type(module) is ModuleType
    assert module.graph_break() == "broken"
    assert module.disable(print, False, wrapping=False) == ("disabled", print, False, False, None)
    with pytest.raises(AttributeError, match="no_such_thing"):
        module.no_such_thing  # noqa: B018
    assert sorted(n for n in vars(module) if "gradwise" in n) == []


def test_functions_that_were_let_through_are_asked_for_again(package: Path) -> None:
    def inner():
        return "run"

    module = imported()
    inner.__dict__["__dynamo_disable"] = module.disable(inner, True, wrapping=False)
    module.explain()
    assert "__dynamo_disable" not in vars(inner)


def test_threads_wait_for_one_loading(package: Path) -> None:
    (package / "__init__.py").write_text(PACKAGE + "import time; time.sleep(0.2); late = 1")
    module, found = imported(), []
    threads = [threading.Thread(target=lambda: found.append(module.late)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, loads()) == ([1] * 4, 1)


def test_where_it_cannot_be_loaded_each_asking_says_so(package: Path) -> None:
    (package / "__init__.py").write_text("raise ImportError('nothing to compile with')")
    module = imported()
    for _ in range(2):
        with pytest.raises(ImportError, match="nothing to compile with"):
            module.explain()
        module.graph_break()


def test_what_is_there_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "NAME", "json")
    before = list(sys.meta_path)
    compiler.put_off()
    assert sys.meta_path == before


TRAINS_THEN_COMPILES = """
import sys
if sys.argv[1] == "put off":
    from gradwise.trials.compiler import put_off
    put_off()
import torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
for optimizer in (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.optim.Adam(model.parameters())):
    for step in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        print(float(model.weight.detach().double().sum()))
print("loaded", "torch._dynamo.convert_frame" in sys.modules, file=sys.stderr)
torch.compile(optimizer.step, backend="eager")()
print(float(model.weight.detach().double().sum()), torch.compile(lambda x: x * 2, backend="eager")(torch.ones(2)))
from torch._dynamo.utils import counters
print(dict(counters["stats"]), sorted(counters["graph_break"].values()), type(torch._dynamo))
"""


def test_training_and_compiling_are_as_without(tmp_path: Path) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", TRAINS_THEN_COMPILES, how],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True,
        )
        for how in ("put off", "plain")
    ]  # fmt: skip
    assert runs[0].stdout == runs[1].stdout
    assert "unique_graphs" in runs[0].stdout
    assert ["loaded False" in run.stderr for run in runs] == [True, False]
