"""The package as a user meets it: light to import, runnable as a module, complete."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

import gradwise

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "numpy", "sqlalchemy", "plotly", "sklearn")


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)


def loaded_by(statement: str) -> set[str]:
    """The modules in memory after `statement`, in a process of its own; prints how long it took."""
    program = f"""
import json, sys, time
began = time.perf_counter()
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
finally:
    took = time.perf_counter() - began
print()
print(json.dumps([took, sorted(sys.modules)]))
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    print(f"{statement}: {seconds:.3f} s")
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    "statement",
    [
        "import gradwise",
        "sys.argv = ['gradwise', '--help']; from gradwise.cli import main; main()",
        "sys.argv = ['gradwise', 'doctor', '--help']; from gradwise.cli import main; main()",
        "sys.argv = ['gradwise', '--version']; from gradwise.cli import main; main()",
    ],
)
def test_starts_without_anything_heavy(statement: str) -> None:
    assert not loaded_by(statement) & set(HEAVY)


def test_version_is_that_of_the_installed_package() -> None:
    assert version("gradwise") == gradwise.__version__
    assert python("-m", "gradwise", "--version").stdout.split() == ["gradwise", gradwise.__version__]


def test_runs_as_a_module() -> None:
    done = python("-m", "gradwise", "--help")
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout
    assert not done.stderr


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="gradwise")
    assert callable(command.load())


@pytest.mark.parametrize("name", sorted({*gradwise.__all__, *gradwise._PUBLIC}))
def test_public_names_resolve(name: str) -> None:
    assert getattr(gradwise, name) is not None
    assert name in dir(gradwise)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gradwise.nonsense


@pytest.mark.parametrize(
    "resource", ["py.typed", "report/schema.json", "report/page.css", "trials/inject/sitecustomize.py"]
)
def test_what_is_no_module_is_installed_too(resource: str) -> None:
    assert files("gradwise").joinpath(resource).is_file()


def test_the_wheel_holds_all_of_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    done = python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("gradwise/")}
    source = ROOT / "src"
    files_there = (p.relative_to(source) for p in source.rglob("*") if p.is_file())
    ours = {str(p) for p in files_there if not any(part.startswith((".", "__pycache__")) for part in p.parts)}
    assert packed == ours
