"""Tunes every script of `examples/`, unmodified: `python benchmarks/tune_examples.py` (minutes).

Two short trials each, by a guess and a grid of what the script's training lets itself be set: a line says what was
selected on and what came of it. Ends with status 1 if a script could not be tuned.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# What is tuned, and the script's own arguments that keep it short.
COMMANDS: dict[str, tuple[str, str]] = {
    "breast_cancer_logistic": ("--lr 0.1,1 --training-loss", "--epochs 3"),
    "cartpole_reinforce": (r"--arg lr=0.01,0.05 --maximize --metric stood\sfor\s(\d+)", "--iterations 10"),
    "char_lstm": ("--lr 0.01,0.05 --clip own", "--epochs 1"),
    "denoise_amp": ("--lr 1e-3,1e-2 --rule own", "--epochs 2"),
    "diabetes_regression": ("--rule sgd,adam --lr 0.01", "--epochs 10"),
    "digits_cnn": ("--lr 0.01,0.1 --schedule own", "--epochs 1"),
    "digits_mlp": ("--arg hidden=16,32 --lr 0.1", "--epochs 2"),
    "gan": ("--lr 1e-3,4e-3 --which 1 --training-loss", "--steps 60"),
    "iris_from_scratch": ("--arg lr=0.02,0.1 --metric loss\\s(\\S+),", "--epochs 10"),
    "tiny_transformer": ("--lr 1e-3,1e-2 --weight-decay own", "--steps 100"),
    "vae": ("--activation relu,tanh --training-loss", "--epochs 2"),
    "wine_lbfgs": ("--arg max-iter=5,10 --training-loss", "--epochs 5"),
}


def main() -> int:
    """A line for each script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", default=sorted(COMMANDS), metavar="NAME")
    failed = 0
    for name in parser.parse_args().scripts:
        options, arguments = COMMANDS[name]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(EXAMPLES, Path(folder) / "examples")
            command = [
                sys.executable,
                "-m",
                "gradwise",
                "tune",
                "--method",
                "grid",
                "--seeds",
                "0",
                "--json",
                "../tune.json",
            ]
            done = subprocess.run(
                [*command, *options.split(), f"{name}.py", *arguments.split()],
                cwd=Path(folder) / "examples", capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                failed += 1
                print(f"{name:24} ✗ {' '.join(done.stderr.split())[-300:]}", flush=True)
                continue
            report = json.loads((Path(folder) / "tune.json").read_text("utf-8"))
        own, values = report["own"]["value"], [t.get("value") for t in report["trials"]]
        problems = [t["problem"] for t in report["trials"] if t.get("problem")]
        failed += len(problems)
        notes = [note for note in report["notes"] if "test" in note and "--test-metric" not in note]
        print(
            f"{name:24} ✓ {report['selected_on']}: own {own:.4g}, trials {values}, "
            f"{time.perf_counter() - began:.0f} s{' · ' + (problems or notes)[0][:90] if problems or notes else ''}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
