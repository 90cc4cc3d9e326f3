"""Check examples/curves.json: does each command line make the curve it is listed for?

    python benchmarks/curves.py                       # every entry: about half an hour on two cores
    python benchmarks/curves.py --only digits_mlp     # one script's entries
    python benchmarks/curves.py --write               # also put the figures into each entry's `why`

A curve is judged by outcomes, not by its looks. A sick command has `cures` (a sound rate, or the same rate with a
sound schedule): each must end clearly better than the command. `others` are changes that must not end clearly better
than the cure, or, for a command without cures (green), than the command itself. *Clearly better* means: with every
seed, and on average by more than the better runs' standard deviation over the seeds (the worse ones may end
anywhere) and by more than 2 % of the way the loss came down. The validation loss decides where the script computes
one, else the training loss over the last tenth of the run. Besides, the training loss must have the kind's shape
with every seed (`SHAPES`). The exit status is 1 if an entry fails.

Runs are subprocesses, one after another. The losses are taken in the child by wrapping `Tensor.backward` and the
functional losses, so that nothing depends on what a script prints and nothing on gradwise.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CURVES = EXAMPLES / "curves.json"
MATERIAL = 0.02
SCORES = {"gan.py": r"near a mode: ([\d.]+)", "cartpole_reinforce.py": r"stood for (\d+)"}
"""Scripts whose losses say nothing of success: the printed score that takes the training loss's place, negated."""


@dataclass(frozen=True)
class Run:
    """The losses of one run: `train` one per backward pass, `validation` one per pass over held-out data."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def smooth(self) -> np.ndarray:
        """The training loss as means over 50 equal stretches; infinite where it was not finite."""
        parts = np.array_split(self.train, min(50, len(self.train)))
        return np.array([p.mean() if np.isfinite(p).all() else np.inf for p in parts])

    @property
    def first(self) -> float:
        """The training loss before the first step."""
        return float(self.train[0])

    @property
    def final(self) -> float:
        """The training loss over the last tenth of the run."""
        return float(self.smooth[-max(1, len(self.smooth) // 10) :].mean())

    @property
    def outcome(self) -> float:
        """What the run is judged by."""
        value = float(self.validation[-1]) if len(self.validation) else self.final
        return value if np.isfinite(value) and np.isfinite(self.final) else np.inf


def starts_too_high(run: Run, cured: Run) -> bool:
    """Rises from the start, or is not finite, or leaves a quarter of the way that the cure shows to be possible."""
    s = run.smooth
    quarter = 0.25 * (run.first - cured.final)
    return bool(s.max() == np.inf or s[:10].max() > run.first + quarter or run.final > cured.final + quarter)


def falls_then_lies(run: Run, cured: Run) -> bool:
    """Three quarters of the way are done in the first third of the run, and the last adds little."""
    s = run.smooth
    way = run.first - cured.final
    return bool(run.first - s[:16].min() > 0.75 * way and s[-20:-10].mean() - s[-10:].mean() < 0.1 * way)


def creeps(run: Run, cured: Run) -> bool:
    """Still coming down at the end: the second half brings a quarter of the fall, without ever having risen."""
    s = run.smooth
    fall = s[0] - s[-1]
    return bool(fall > 0 and s[24] - s[-1] > 0.25 * fall and s.max() < s[0] + 0.25 * fall)


def runs_away(run: Run, cured: Run) -> bool:
    """Comes down half of the way, then climbs back by a quarter of it or more, and stays there."""
    s = run.smooth
    lowest = s.min()
    way = run.first - cured.final
    return bool(run.first - lowest > 0.5 * way and s[-3:].min() - lowest > 0.25 * way)


def comes_down(run: Run, cured: Run) -> bool:
    """Ends below where it began."""
    return run.final < run.first


SHAPES: dict[str, Callable[[Run, Run], bool]] = {
    "red": starts_too_high,
    "purple": falls_then_lies,
    "yellow": creeps,
    "late-divergence": runs_away,
    "green": comes_down,
}


def clearly_better(a: Sequence[Run], b: Sequence[Run]) -> bool:
    """Whether `a` ended clearly better than `b`, seed by seed (see the top of this file)."""
    if not all(np.isfinite(r.outcome) for r in a):
        return False
    if not all(np.isfinite(r.outcome) for r in b):
        return all(x.outcome < y.outcome for x, y in zip(a, b, strict=True))
    gains = np.array([y.outcome - x.outcome for x, y in zip(a, b, strict=True)])
    spread = np.std([r.outcome for r in a], ddof=1)
    way = np.mean([r.first - r.final for r in a])
    return bool(gains.min() > 0 and gains.mean() > max(spread, MATERIAL * way))


@cache
def run(command: tuple[str, ...], seed: int) -> Run:
    """Run an example with `--seed` and return its losses; raises RuntimeError with its stderr if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        losses = Path(folder, "losses.npz")
        child = [sys.executable, __file__, "--record", str(losses), *command, "--seed", str(seed)]
        done = subprocess.run(child, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} --seed {seed} failed:\n{done.stderr}")
        if command[0] in SCORES:
            return Run(-np.array(re.findall(SCORES[command[0]], done.stdout), dtype=float), np.empty(0))
        with np.load(losses) as data:
            return Run(data["train"], data["validation"])


def record(out: str, script: str, arguments: list[str]) -> None:
    """The child: run `script` as `__main__` and save its losses to `out`."""
    import torch
    from torch.nn import functional

    train: list[float] = []
    passes: list[list[float]] = []  # [backward passes before it, sum of losses, rows]
    backward: Callable[..., None] = torch.Tensor.backward

    def noting_backward(self: torch.Tensor, *args: object, **kwargs: object) -> None:
        train.append(self.item())
        backward(self, *args, **kwargs)

    def noting(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def wrapper(input: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            value = loss(input, *args, **kwargs)
            if not torch.is_grad_enabled():
                if not passes or passes[-1][0] != len(train):
                    passes.append([len(train), 0.0, 0.0])
                passes[-1][1] += value.item() * (1 if kwargs.get("reduction") == "sum" else len(input))
                passes[-1][2] += len(input)
            return value

        return wrapper

    torch.Tensor.backward = noting_backward  # type: ignore[method-assign]
    for name in ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits"):
        setattr(functional, name, noting(getattr(functional, name)))
    sys.argv = [script, *arguments]
    sys.path[0] = str(EXAMPLES)
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    np.savez(out, train=np.array(train), validation=np.array([total / rows for _, total, rows in passes]))


def judge(entry: dict[str, Any], seeds: Sequence[int]) -> tuple[bool, str]:
    """Whether an entry's claim holds, and the figures in words."""

    def runs(command: Sequence[str]) -> list[Run]:
        return [run(tuple(command), seed) for seed in seeds]

    mine = runs(entry["command"])
    best = runs(entry["cures"][0]) if entry["cures"] else mine
    shape = all(SHAPES[entry["curve"]](*pair) for pair in zip(mine, best, strict=True))
    holds = shape
    kind = "validation loss" if len(mine[0].validation) else "training loss"
    if entry["command"][0] in SCORES:
        kind = "minus score"
    words = [f"{kind} over {len(seeds)} seeds {numbers([r.outcome for r in mine])}"]
    for command, expected, rival in [(c, True, mine) for c in entry["cures"]] + [
        (c, False, best) for c in entry["others"]
    ]:
        theirs = runs(command)
        verdict = clearly_better(theirs, rival)
        holds &= verdict is expected
        change = " ".join(command[1:]) or "the defaults"
        words.append(f"{numbers([r.outcome for r in theirs])} with {change}{'' if verdict is expected else ' (!)'}")
    return holds, "; ".join(words) + ("" if shape else "; not the shape (!)")


def numbers(values: Sequence[float]) -> str:
    """Three digits each, `-` where it was not finite."""
    return " / ".join(f"{v:.3g}" if np.isfinite(v) else "-" for v in values)


def as_text(entries: Sequence[dict[str, Any]]) -> str:
    """JSON with one key a line."""
    objects = (",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in e.items()) for e in entries)
    return "[\n" + ",\n".join(f" {{\n{o}\n }}" for o in objects) + "\n]\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="entries whose command contains this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="update the entries' `why`")
    parser.add_argument("--record", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.record:
        record(args.record[0], args.record[1], args.record[2:])
        return 0

    entries = json.loads(CURVES.read_text())
    failed = 0
    for entry in entries:
        line = " ".join(entry["command"])
        if args.only not in line:
            continue
        holds, figures = judge(entry, range(args.seeds))
        failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {entry['curve']:15s} {line}\n     {figures}", flush=True)
        if args.write and holds:
            entry["why"] = figures
            CURVES.write_text(as_text(entries))
    print(f"{failed} of {len(entries)} entries fail" if failed else "all hold")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
