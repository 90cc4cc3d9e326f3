"""The example scripts run as they are, repeat themselves under a seed, watched or not, and know nothing of gradwise."""

from __future__ import annotations

import json
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


# Each script without gradwise, in a process forked from one that has imported the libraries and done nothing else:
# that import takes longer than a tiny run.
PLAIN = """
import json, os, runpy, sys
import numpy, torch, torch._dynamo, torch.utils.data
import sklearn.datasets, sklearn.model_selection, sklearn.preprocessing

exits = {}
for name, path, arguments in json.loads(sys.argv[1]):
    os.mkdir(name)
    child = os.fork()
    if child:
        exits[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        continue
    for stream, kept in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(name + kept, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(name)
    sys.path[0] = os.path.dirname(path)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
    sys.exit()
print(json.dumps(exits))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each script wrote (`name/`), printed (`name.out`) and said (`name.err`)."""
    folder = tmp_path_factory.mktemp("plain")
    given = json.dumps([[script, str(EXAMPLES / script), arguments(script)] for script in TINY])
    done = subprocess.run([sys.executable, "-c", PLAIN, given], cwd=folder, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout).values()) == {0}, (done.stdout, [p.read_text() for p in folder.glob("*.err")])
    return folder


def arguments(script: str) -> list[str]:
    return [*TINY[script], "--seed", "5", "--out", "out"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("script", sorted(TINY))
def test_a_seeded_run_repeats_itself_and_cannot_tell_that_it_is_watched(
    script: str, plain: Path, tmp_path: Path
) -> None:
    doctor = ["doctor", "--no-repair", "--store", f"sqlite:///{tmp_path}/runs.db"]
    command = [sys.executable, "-m", "gradwise", *doctor, str(EXAMPLES / script), *arguments(script)]
    folder = tmp_path / "watched"
    folder.mkdir()
    watched = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)
    out, err = ((plain / (script + kept)).read_text() for kept in (".out", ".err"))
    assert watched.returncode == 0, watched.stderr
    assert out + err, "it prints nothing"
    assert watched.stdout == out
    assert watched.stderr.startswith(err)
    assert "steps in" in watched.stderr[len(err) :]
    written = files(plain / script)
    assert written, "it writes nothing under --out"
    assert written == files(folder)


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
