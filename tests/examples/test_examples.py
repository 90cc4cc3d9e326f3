"""The example scripts run as they are, repeat themselves under a seed, watched or not, and know nothing of gradwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {
    "breast_cancer_logistic.py": ["--epochs", "2"],
    "cartpole_reinforce.py": ["--iterations", "10", "--horizon", "20"],
    "char_lstm.py": ["--epochs", "1", "--chars", "2000", "--log-every", "2"],
    "denoise_amp.py": ["--epochs", "2"],
    "diabetes_regression.py": ["--epochs", "2"],
    "digits_cnn.py": ["--epochs", "1"],
    "digits_mlp.py": ["--epochs", "2"],
    "gan.py": ["--steps", "100", "--hidden", "8"],
    "iris_from_scratch.py": ["--epochs", "10"],
    "tiny_transformer.py": ["--steps", "4", "--eval-every", "2"],
    "vae.py": ["--epochs", "2"],
    "wine_lbfgs.py": ["--epochs", "6"],
}
MODULES = {"engine.py"}
CURVES = {"green", "red", "purple", "yellow", "late-divergence"}
IDS = {"red": "lr-too-high", "purple": "late-lr-too-high", "yellow": "lr-too-low", "green": None}


def start(script: str, folder: Path, *launcher: str) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, *launcher, str(EXAMPLES / script), *TINY[script], "--seed", "5", "--out", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("script", sorted(TINY))
def test_a_seeded_run_repeats_itself_and_cannot_tell_that_it_is_watched(script: str, tmp_path: Path) -> None:
    doctor = ["-m", "gradwise", "doctor", "--no-repair", "--store", f"sqlite:///{tmp_path}/runs.db"]
    folders = [tmp_path / "plain", tmp_path / "watched"]
    runs = [start(script, folders[0]), start(script, folders[1], *doctor)]
    (out, err), (out_watched, err_watched) = [run.communicate(timeout=250) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], err + err_watched
    assert out + err, "it prints nothing"
    assert out_watched == out
    assert err_watched.startswith(err)
    assert "steps in" in err_watched[len(err) :]
    written = files(folders[0])
    assert written, "it writes nothing under --out"
    assert written == files(folders[1])


def test_every_script_is_tested_and_listed() -> None:
    scripts = {p.name for p in EXAMPLES.glob("*.py")} - MODULES
    assert scripts == set(TINY)
    readme = (EXAMPLES / "README.md").read_text()
    assert [s for s in scripts if f"`{s}`" not in readme] == []


def test_no_script_knows_of_gradwise() -> None:
    assert [p.name for p in EXAMPLES.glob("*.py") if "gradwise" in p.read_text()] == []


def test_the_listed_curves_are_commands_of_these_scripts() -> None:
    for entry in json.loads((EXAMPLES / "curves.json").read_text()):
        assert set(entry) == {"curve", "id", "command", "cures", "others", "why"}
        assert entry["curve"] in CURVES
        assert entry["id"] == IDS.get(entry["curve"], entry["curve"])
        assert bool(entry["cures"]) == (entry["curve"] != "green")
        assert entry["why"]
        for script, *arguments in [entry["command"], *entry["cures"], *entry["others"]]:
            assert script == entry["command"][0]
            text = (EXAMPLES / script).read_text()
            options = {a.removeprefix("--") for a in arguments if a.startswith("--")}
            assert [o for o in options if o not in text and o.replace("-", "_") not in text] == []
