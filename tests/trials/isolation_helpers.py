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
