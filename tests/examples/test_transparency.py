"""The watched script can't tell how it ends: exit status and exception are its own.

That what it prints and writes is the same, bitwise, is checked on each example in `test_examples`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


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
