"""The watched script can't tell: what it prints, writes and returns is bitwise what it does without gradwise.

That two plain runs are the same is checked in `test_examples`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_examples import EXAMPLES, TINY, files


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    folder.mkdir()
    pipe = subprocess.PIPE
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("script", sorted(TINY))
def test_watched_and_plain_are_the_same(script: str, tmp_path: Path) -> None:
    plain = [str(EXAMPLES / script), *TINY[script], "--seed", "5", "--out", "out"]
    store = f"sqlite:///{tmp_path}/runs.db"
    doctor = [sys.executable, "-m", "gradwise", "doctor", "--no-repair", "--store", store, *plain]
    runs = [start(tmp_path / "plain", [sys.executable, *plain]), start(tmp_path / "watched", doctor)]
    (out, err), (out_watched, err_watched) = [run.communicate(timeout=250) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], err + err_watched
    assert out_watched == out
    assert err_watched.startswith(err)
    assert "steps in" in err_watched[len(err) :]
    assert files(tmp_path / "watched") == files(tmp_path / "plain")


def test_an_exit_status_and_an_exception_are_the_scripts(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys, torch\nprint(sys.argv, __name__, sys.path[0])\nraise ValueError('mine')\n")
    plain = subprocess.run([sys.executable, str(script), "a"], capture_output=True, text=True, check=False)
    watched = subprocess.run(
        [sys.executable, "-m", "gradwise", "doctor", "--store", f"sqlite:///{tmp_path}/runs.db", str(script), "a"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout)
    assert watched.stderr.startswith(plain.stderr)
