"""Shows that each sick patient is cured by its fix, and how well the healthy ones do, over seeds.

    python clinic/prove.py                      all
    python clinic/prove.py --only lr-too-high   those with this in their name
    python clinic/prove.py --missing            those without a proof in their present wording

What was found is written into the patient's file, as its table `[proof]`. A cure counts where the fixed script is
better than the sick one in each pair of runs with the same seed, and by more on average than the gains vary from seed
to seed: the rule by which `gradwise doctor` calls a remedy verified.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patients import CLINIC, BadPatient, Patient, load

from gradwise.diagnosis.metric import Outcome
from gradwise.search.judge import judge

TIMEOUT = 300
_PROOF = re.compile(r"\n*^\[proof\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)


class Failed(RuntimeError):
    """Why a run gave no score."""


def run(patient: Patient, text: str, seed: int) -> tuple[float, float]:
    """Run a wording of the script in a folder of its own: its score, and the processor's seconds it took.

    Raises:
        Failed: if it ended with an error or printed no score.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / patient.script.name
        script.write_text(text, encoding="utf-8")
        command = [sys.executable, str(CLINIC / "seeded.py"), str(seed), str(script), *patient.args]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        before = _seconds()
        try:
            ended = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"it ran for more than {TIMEOUT} s") from None
        seconds = _seconds() - before
    if ended.returncode:
        raise Failed("it failed: " + (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1])
    score = patient.score(ended.stdout)
    if score is None:
        raise Failed(f"nothing that it printed matches {patient.metric}")
    return score, seconds


def _seconds() -> float:
    """What ended child processes took of the processor; unlike the clock, the same however busy the machine is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prove(patient: Patient, seeds: int) -> tuple[dict[str, Any], str]:
    """Run one patient over seeds: its proof, and what speaks against it ("" if nothing does).

    Raises:
        Failed: if a run gave no score. (That of a sick script may: it is the worst of all scores.)
    """
    wordings = {"sick": patient.text, "fixed": patient.fixed} if patient.cause else {"score": patient.text}
    scores: dict[str, list[float]] = {state: [] for state in wordings}
    seconds = []
    for seed in range(seeds):
        for state, text in wordings.items():
            try:
                score, took = run(patient, text, seed)
                seconds.append(took)
            except Failed as error:
                if state != "sick":
                    raise Failed(f"{state}, seed {seed}: {error}") from None
                score = math.nan
            scores[state].append(score)
    proof: dict[str, Any] = dict(scores)
    if patient.cause:
        problem = against(scores["sick"], scores["fixed"], patient.maximize)
        proof["cured"] = not problem
    else:
        lost = [score for score in scores["score"] if not math.isfinite(score)]
        problem = f"its score is {lost[0]}" if lost else ""
    proof["seconds"] = round(statistics.median(seconds), 1)
    proof["torch"] = _version()
    proof["digest"] = patient.digest
    return proof, problem


def against(sick: Sequence[float], fixed: Sequence[float], maximize: bool) -> str:
    """What speaks against a cure; "" if nothing does."""
    sign = -1 if maximize else 1
    outcomes = [[Outcome("score", sign * s if math.isfinite(s) else None) for s in scores] for scores in (sick, fixed)]
    judgement = judge(list(zip(*outcomes, strict=True)))
    return "" if judgement.verified else judgement.reason


def write(notes: Path, proof: Mapping[str, Any]) -> None:
    """Put a proof into a patient's file, in place of one that is there, and leave the rest as it is."""
    text = _PROOF.sub("\n", notes.read_text(encoding="utf-8"), count=1).rstrip("\n")
    lines = [f"{key} = {_toml(value)}" for key, value in proof.items()]
    notes.write_text(text + "\n\n[proof]\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _version() -> str:
    from importlib.metadata import version

    return version("torch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only patients with this in their name")
    parser.add_argument("--missing", action="store_true", help="only patients without a valid proof")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds takes at least 1")
    try:
        patients = [p for p in load() if args.only in p.name and not (args.missing and p.proved)]
    except BadPatient as error:
        print(error, file=sys.stderr)
        return 2
    failed = []
    for patient in patients:
        try:
            proof, problem = prove(patient, args.seeds)
            write(patient.notes, proof)
        except Failed as error:
            proof, problem = {}, str(error)
        scores = "  ".join(f"{key} {_short(proof[key])}" for key in ("sick", "fixed", "score") if key in proof)
        print(
            f"{'FAILS' if problem else 'ok':5s} {patient.name}: {scores}  {proof.get('seconds', '')} s  {problem}",
            flush=True,
        )
        failed += [patient.name] if problem else []
    print(
        f"{len(patients) - len(failed)} of {len(patients)} hold" + (": all but " + ", ".join(failed) if failed else "")
    )
    return 1 if failed else 0


def _short(scores: Sequence[float]) -> str:
    return " ".join(f"{score:.4g}" for score in scores)


if __name__ == "__main__":
    sys.exit(main())
