"""Runs the command line as a user does, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TRAIN = """
import atexit, sys, time
import torch

mode, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
x = torch.randn(128, 8)
y = x.sum(1, keepdim=True)
atexit.register(lambda: print("at its end"))
try:
    for k in range(150):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if mode == "wait" and k == 100:
            print("waiting", flush=True)
            time.sleep(100)
finally:
    print("finally")
print(f"loss {loss.item():.3f}")
if mode == "fails":
    raise ValueError("mine")
if mode == "crash":
    import ctypes
    ctypes.string_at(0)
"""


class Place:
    """A folder with a script that trains and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "train.py").write_text(textwrap.dedent(TRAIN))

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(textwrap.dedent(text))
        return name

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gradwise", *words]

    def run(self, *words: str, **options) -> subprocess.CompletedProcess[str]:
        settings = {"capture_output": True, "text": True, "timeout": 250, "env": environment(), **options}
        return subprocess.run(self.command(*words), cwd=self.folder, **settings)

    def start(self, *words: str) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(*words), cwd=self.folder, env=environment(), **streams)


def refused(capsys, monkeypatch, folder: Path, *words: str) -> str:
    """What a command that ends with status 2 says, in this process (which is quicker)."""
    from gradwise.cli import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gradwise", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    return said.err


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("GRADWISE_STORE", "GRADWISE_DEBUG")}
    return {**kept, "COLUMNS": "100"}
