"""`python -m gradwise.optim.check`: right where all is right, and not where anything isn't."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from gradwise.optim import check
from gradwise.optim.kernels import reference


def test_all_is_right_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--rule", "Adam", "--rule", "LAMB"]) == 0
    said = capsys.readouterr().out
    assert said.count(" ok") >= 2 * 6
    assert "Adam" in said
    assert "Lion" not in said
    assert "all right" in said
    if not torch.cuda.is_available():
        assert "gpu: skipped, no GPU" in said


def test_what_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    apply = reference.apply

    def off(rule: Any, p: Any, *rest: Any) -> Any:
        new, states = apply(rule, p, *rest)
        return new * (1 + 1e-4), states

    monkeypatch.setattr(reference, "apply", off)
    assert check.main(["--rule", "SGD", "--backend", "cpu"]) == 1
    assert "FAILED SGD, cpu float32: off by" in capsys.readouterr().out


def test_one_that_fails_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = check.worst

    def broken(name: str, way: check.Way) -> float:
        if name == "SGD":
            raise RuntimeError("no such instruction")
        return worst(name, way)

    monkeypatch.setattr(check, "worst", broken)
    assert check.main(["--rule", "SGD", "--rule", "Lion", "--backend", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "FAILED SGD, cpu float64: RuntimeError: no such instruction" in said
    assert said.count(" ok") == 2


def test_nothing_to_run_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert check.main(["--backend", "gpu"]) == 1
    assert "nothing to run" in capsys.readouterr().out


def test_as_a_command() -> None:
    command = [sys.executable, "-m", "gradwise.optim.check", "--rule", "SGD", "--backend", "reference"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SGD" in done.stdout
    with pytest.raises(SystemExit) as ended:
        check.main(["--rule", "Adamm"])
    assert ended.value.code == 2
