"""Runs small scripts in real child processes with gradwise's audit, guard or seeds in them, as the product does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwise.trials.sandbox import Isolation, Workspace

_START = """
import json, os, sys

orders = json.loads(os.environ.pop("ISOLATION_ORDERS"))
sink = os.open(orders["messages"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
pid = os.getpid()


def report(kind, data):
    if os.getpid() == pid:
        os.write(sink, (json.dumps([kind, data]) + "\\n").encode())


from gradwise.trials.importing import after_import

if orders.get("audit") is not None:
    from gradwise.trials.audit import install_audit, watch_torch_save

    install_audit(report, **orders["audit"])
    after_import("torch", watch_torch_save)
if "seed" in orders:
    from gradwise.trials.seeds import Seeds

    seeds = Seeds(report, orders["seed"])
    seeds.install_random()
    after_import("numpy.random", seeds.install_numpy)
    after_import("torch", seeds.install_torch)
if orders.get("guard") is not None:
    from gradwise.trials.audit import watch_torch_save
    from gradwise.trials.guard import install_guard, quiet_matplotlib

    guard = install_guard(orders["guard"], report)
    report("confined", {"confined": guard.confined})
    after_import("torch", watch_torch_save)
    after_import("matplotlib", quiet_matplotlib)
"""


@dataclass
class Ran:
    """What became of a child."""

    exit: int
    stdout: str
    stderr: str
    messages: list[tuple[str, dict[str, Any]]]

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [data for k, data in self.messages if k == kind]

    def ok(self) -> Ran:
        assert self.exit == 0, self.stderr
        return self


def run(
    script: str | Path,
    cwd: str | Path,
    scratch_folder: Path,
    argv: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
    **orders: Any,
) -> Ran:
    """Run `python script argv…` in `cwd` with `audit=`, `guard=`, `seed=` as orders; helpers go to `scratch_folder`."""
    inject = scratch_folder / "inject"
    inject.mkdir(parents=True, exist_ok=True)
    (inject / "sitecustomize.py").write_text(_START)
    messages = scratch_folder / f"messages-{len(list(scratch_folder.iterdir()))}"
    environment = {
        **(os.environ if env is None else env),
        "PYTHONPATH": str(inject),
        "ISOLATION_ORDERS": json.dumps({"messages": str(messages), **orders}),
    }
    done = subprocess.run(
        [sys.executable, *python, str(script), *argv],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = messages.read_text().splitlines() if messages.exists() else []
    return Ran(done.returncode, done.stdout, done.stderr, [tuple(json.loads(line)) for line in lines])


def write(path: Path, text: str) -> Path:
    """Write a dedented script, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that is below a folder, with content, mode and times (but for folders)."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        if path.is_symlink():
            found[str(path)] = ("link", os.readlink(path))
        elif path.is_dir():
            found[str(path)] = ("folder", state.st_mode)
        else:
            found[str(path)] = ("file", state.st_mode, state.st_mtime_ns, path.read_bytes())
    return found


class Doctor:
    """Does with a script what the doctor does: a watched run, then trials in scratches."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path
        self.work = tmp_path / "project"
        self.work.mkdir()
        self.aside = tmp_path / "aside"
        self.aside.mkdir()
        self.env = {**os.environ, "HOME": str(tmp_path / "home")}
        self.cwd = self.work
        self.script = "train.py"
        self.workspace: Workspace | None = None

    def watch(self, text: str, argv: Sequence[str] = ()) -> Ran:
        """The watched run; what it should leave, it leaves."""
        write(Path(self.cwd, self.script), text)
        self.workspace = Workspace.before(str(self.cwd), self.script, argv, self.env)
        ran = run(self.script, self.cwd, self.aside, argv, env=self.env, audit=self.workspace.audit()).ok()
        for note in ran.said("effect"):
            self.workspace.note(note)
        self.workspace.after()
        return ran

    def isolation(self) -> Isolation:
        assert self.workspace is not None
        return self.workspace.isolation()

    def trial(self, confine: bool = True) -> tuple[Ran, str | None]:
        """One trial; checked to change nothing at all of what is below the test's folder."""
        assert self.workspace is not None
        before = {k: v for k, v in tree(self.home).items() if not k.startswith(str(self.aside))}
        with self.workspace.scratch() as scratch:
            assert scratch.script is not None
            guard = {**scratch.guard(), "confine": confine}
            ran = run(
                scratch.script,
                scratch.cwd,
                self.aside,
                scratch.argv,
                env=scratch.environment,
                guard=json.loads(json.dumps(guard)),
            )
            violation = scratch.violation()
        assert not os.path.exists(scratch.top)
        assert {k: v for k, v in tree(self.home).items() if not k.startswith(str(self.aside))} == before
        assert [m["what"] for m in ran.said("violation")] in ([], [violation])
        return ran, violation

    def same(self, text: str, argv: Sequence[str] = ()) -> None:
        """The watched run and two trials print the same, and nothing stands against them."""
        watched = self.watch(text, argv)
        assert self.isolation() == Isolation(True)
        for confine in (True, False):
            ran, violation = self.trial(confine)
            assert violation is None
            assert ran.ok().stdout == watched.stdout
