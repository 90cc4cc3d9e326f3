"""What `gradwise doctor` says of the clinic's patients, and whether what it does cures them.

    python benchmarks/diagnosis.py --half development              # one run each, without trials
    python benchmarks/diagnosis.py --half test --repair            # with trials: hours
    python benchmarks/diagnosis.py --half both --healthy --seeds 3 # false alarms alone
    python benchmarks/diagnosis.py --half test --repair --random   # and the random search to beat, at the same cost

Printed are a line for each run and, for each half: how often the root cause is named first (hit@1) and among the first
three (hit@3), healthy runs with an error or a warning and the 95 % interval of that share (Wilson), the share of sick
patients whose verified remedy recovers at least 80 % of the gap to the true fix (by the patient's own score over the
same seeds; causes without an intervention are listed and left out), seconds, and a table of what was said for what.
`--keep FILE` writes each run as a line of JSON as soon as it is known; runs that the file has are not made again.

The random search draws interventions from the same fields, runs each once, and takes the one that ends with the
lowest loss, as the doctor judges it, within the doctor's number of trials.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "clinic")]

from doctor import wilson  # type: ignore[import-not-found]  # noqa: E402
from patients import HALVES, Patient, load  # noqa: E402

from gradwise.interventions import ACTIVATIONS, FIXES, INITS, Intervention  # noqa: E402

RECOVERED = 0.8
# Worth knowing and no more: the doctor says it, and tries nothing.
INFO = frozenset({"decay-on-bias-or-norm"})
# What no change from outside can cure: the data or the model have to be others.
NO_INTERVENTION = frozenset({"labels-mismatched", "underfitting", *INFO})
TIMEOUT = 1800


def gradwise(patient: Patient, *options: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run a gradwise command on a patient, in a folder of its own with the script in it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, patient.script.name).write_text(patient.text, "utf-8")
        command = [sys.executable, "-m", "gradwise", *options, patient.script.name, *patient.args]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )


def visit(patient: Patient, seed: int, repair: bool) -> dict[str, Any]:
    """One doctor's visit: what it said, in short."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["doctor", "--quiet", "--json", str(report), "--store", f"sqlite:///{folder}/runs.db"]
        options += [*(["--seed", str(seed)] if seed else []), *([] if repair else ["--no-repair"])]
        began = time.monotonic()
        try:
            gradwise(patient, *options)
        except subprocess.TimeoutExpired:
            return {"verdict": "timeout", "seconds": TIMEOUT}
        seconds = time.monotonic() - began
        nothing = {"verdict": "no report", "findings": [], "notes": []}
        said: dict[str, Any] = json.loads(report.read_text()) if report.exists() else nothing
    told = [f for f in said["findings"] if f["severity"] != "info"]
    best = next((r for f in told for r in f["remedies"] if r["status"] == "verified"), None)
    return {
        "verdict": said["verdict"],
        "findings": [f["id"] for f in said["findings"]] if patient.cause in INFO else [f["id"] for f in told],
        "confidence": [f["confidence"] for f in told],
        "explains": [f["evidence"].get("explains", []) for f in told],
        "suspected": [n for n in said["notes"] if n.startswith("Suspected")],
        "remedy": best and best["intervention"],
        "tried": sum(r["status"] != "suggested" for f in told for r in f["remedies"]),
        "seconds": round(seconds, 1),
        "overhead": said.get("overhead", {}).get("fraction"),
    }


def score_with(patient: Patient, intervention: dict[str, Any], seed: int) -> float:
    """The patient's own score under an intervention; NaN where it printed none."""
    options = ["run", "--quiet", "--intervention", json.dumps(intervention)]
    with tempfile.TemporaryDirectory() as folder:
        options += ["--store", f"sqlite:///{folder}/runs.db", *(["--seed", str(seed)] if seed else [])]
        score = patient.score(gradwise(patient, *options).stdout)
    return math.nan if score is None else score


def recovered(patient: Patient, intervention: dict[str, Any], seeds: int = 3) -> float:
    """How much of the gap between sick and fixed an intervention closes; the median over seeds."""
    proof, shares = patient.proof, []
    for seed in range(seeds):
        score, sick, fixed = score_with(patient, intervention, seed), proof["sick"][seed], proof["fixed"][seed]
        if not math.isfinite(sick):  # it ended without a score: any as good as the fixed one's order will do
            shares.append(1.0 if math.isfinite(score) else 0.0)
        else:
            shares.append((score - sick) / (fixed - sick) if math.isfinite(score) else -math.inf)
    return statistics.median(shares)


def draw(rng: random.Random) -> dict[str, Any]:
    """An intervention at random, of one or two fields."""
    fields: dict[str, Any] = {
        "lr_scale": 10 ** rng.uniform(-3, 3),
        "clip_norm": 10 ** rng.uniform(-1, 1),
        "rule": rng.choice(["sgd", "momentum", "adam", "adamw", "rmsprop"]),
        "init": rng.choice(INITS),
        "activation": rng.choice(ACTIVATIONS),
        "decay": 10 ** rng.uniform(-4, 0),
        "decay_scale": rng.choice([0.0, 0.01, 0.1]),
        "dropout": rng.choice([0.1, 0.3, 0.5]),
        "dropout_scale": rng.choice([0.0, 0.3]),
        "noise": rng.choice([0.1, 0.3]),
        "accumulate": rng.choice([2, 4, 16]),
        "schedule": {"cosine": {"steps": rng.choice([200, 500, 1000])}},
        "fixes": [rng.choice(list(FIXES))],
    }
    names = rng.sample(sorted(fields), rng.choice([1, 1, 2]))
    return Intervention.from_json({name: fields[name] for name in names}).to_json()


def by_chance(patient: Patient, trials: int) -> dict[str, Any] | None:
    """The best of so many random interventions, judged by one run's loss each."""
    from gradwise.diagnosis.metric import common_metric
    from gradwise.recording.store import Store

    rng = random.Random(patient.name)
    best: tuple[float, dict[str, Any] | None] = (math.inf, None)
    for _ in range(trials):
        change = draw(rng)
        with tempfile.TemporaryDirectory() as folder:
            database = f"sqlite:///{folder}/runs.db"
            gradwise(patient, "run", "--quiet", "--store", database, "--intervention", json.dumps(change))
            with Store.open(database, create=False) as store:
                ended = common_metric([store.load(store.resolve("last"))], 0, None)[0]
        if ended.value is not None and not ended.diverged and ended.value < best[0]:
            best = ended.value, change
    return best[1]


def examine(patient: Patient, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """All that is to be known of one patient with one seed."""
    result: dict[str, Any] = {"patient": patient.name, "half": patient.split, "cause": patient.cause, "seed": seed}
    result |= visit(patient, seed, args.repair)
    curable = patient.cause is not None and patient.cause not in NO_INTERVENTION
    if args.repair and curable:
        result["recovered"] = recovered(patient, result["remedy"]) if result.get("remedy") else None
        if args.random:
            change = by_chance(patient, max(result.get("tried", 0), 6))
            result["random"] = recovered(patient, change) if change else None
    return result


def summary(half: str, results: Sequence[dict[str, Any]]) -> str:
    """The figures of one half."""
    sick, healthy = [r for r in results if r["cause"]], [r for r in results if not r["cause"]]
    lines = [f"\n== {half} =="]
    if sick:
        first = sum(r.get("findings", [])[:1] == [r["cause"]] for r in sick)
        third = sum(r["cause"] in r.get("findings", [])[:3] for r in sick)
        lines += [f"root cause first (hit@1)       {first}/{len(sick)} = {first / len(sick):.2f}"]
        lines += [f"among the first three (hit@3)  {third}/{len(sick)} = {third / len(sick):.2f}"]
    if healthy:
        alarms = [r for r in healthy if r.get("findings")]
        low, high = wilson(len(alarms), len(healthy))
        lines += [
            f"false alarms                   {len(alarms)}/{len(healthy)}, 95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %; inconclusive {sum(r['verdict'] == 'inconclusive' for r in healthy)}"
        ]
    for key, what in (("recovered", "verified repair"), ("random", "random search")):
        tried = [r for r in sick if key in r]
        if tried:
            good = sum(r[key] is not None and r[key] >= RECOVERED for r in tried)
            lines += [f"{what:30} {good}/{len(tried)} = {good / len(tried):.2f} recover {100 * RECOVERED:.0f} %"]
    seconds = [r["seconds"] for r in results if "seconds" in r]
    if seconds:
        lines += [f"seconds a visit                median {statistics.median(seconds):.0f}, most {max(seconds):.0f}"]
    table = Counter((r["cause"] or "healthy", (r.get("findings") or [r["verdict"]])[0]) for r in results)
    lines += ["what it was -> what was said first"]
    for cause in sorted({c for c, _ in table}):
        said = ", ".join(f"{what} {n}" for (c, what), n in table.most_common() if c == cause)
        lines += [f"  {cause:30} {said}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=[*HALVES, "both"], default="development")
    parser.add_argument("--only", default="", help="patients with this in their name")
    parser.add_argument("--healthy", action="store_true", help="healthy patients only")
    parser.add_argument("--sick", action="store_true", help="sick patients only")
    parser.add_argument("--seeds", type=int, default=1, help="seeds for the healthy ones (sick ones have one)")
    parser.add_argument("--repair", action="store_true", help="with trials")
    parser.add_argument("--random", action="store_true", help="with --repair: the random search, too")
    parser.add_argument("--keep", type=Path, help="results, one JSON object a line")
    args = parser.parse_args()
    halves = HALVES if args.half == "both" else (args.half,)
    chosen = [p for p in load() if p.split in halves and args.only in p.name]
    chosen = [p for p in chosen if not (args.healthy and p.cause) and not (args.sick and not p.cause)]
    results = []
    if args.keep and args.keep.exists():
        results = [json.loads(line) for line in args.keep.read_text().splitlines()]
    known = {(r["patient"], r["seed"]) for r in results}
    for patient in sorted(chosen, key=lambda p: p.cause is not None):
        for seed in range(1 if patient.cause else args.seeds):
            if (patient.name, seed) in known:
                continue
            result = examine(patient, seed, args)
            results.append(result)
            if args.keep:
                with args.keep.open("a") as file:
                    file.write(json.dumps(result) + "\n")
            said = result.get("findings") or [result["verdict"]]
            right = said[0] == patient.cause if patient.cause else not result.get("findings")
            close = f"  recovered {result['recovered']:.2f}" if result.get("recovered") is not None else ""
            print(
                f"{'ok' if right else '--'} {result['seconds']:6.1f} s  {patient.name:60} {', '.join(said[:3])}{close}",
                flush=True,
            )
    for half in halves:
        print(summary(half, [r for r in results if r["half"] == half]))


if __name__ == "__main__":
    main()
