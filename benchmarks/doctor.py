"""What `gradwise doctor` says of the curves in examples/curves.json: right cause first, silence on healthy runs.

    python benchmarks/doctor.py                        # every entry, 1 seed, without trials
    python benchmarks/doctor.py --seeds 5              # over 5 seeds
    python benchmarks/doctor.py --repair --only vae    # with trials: slow

Each command is run by the real `gradwise doctor --json`, one after another. Without trials some causes can only be
suspected (a noise floor, say): they count as missed here, and never as false alarms. Printed are a line for each run,
a table of what was said for each kind of curve, and the share of healthy runs with an error or warning, with its 95 %
interval (Wilson).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def diagnose(command: list[str], seed: int, repair: bool) -> dict[str, Any]:
    """The report of one run; `{}` where there was none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = [
            "--json",
            str(report),
            "--store",
            f"sqlite:///{folder}/runs.db",
            *([] if repair else ["--no-repair"]),
        ]
        script = [str(EXAMPLES / command[0]), *command[1:], "--seed", str(seed)]
        run = [sys.executable, "-m", "gradwise", "doctor", *options, *script]
        # One thread: runs are compared with each other, and more gain nothing on models of this size.
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        subprocess.run(run, cwd=folder, env=environment, capture_output=True, check=False)
        return json.loads(report.read_text()) if report.exists() else {}


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share k/n."""
    if not n:
        return 0.0, 1.0
    p, d = k / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / d, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return max(middle - half, 0.0), min(middle + half, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="entries whose command contains this")
    parser.add_argument("--curve", default="", help="entries of this curve")
    parser.add_argument("--repair", action="store_true", help="with trials")
    args = parser.parse_args()
    entries = json.loads((EXAMPLES / "curves.json").read_text())
    chosen = [e for e in entries if args.only in " ".join(e["command"]) and args.curve in e["curve"]]
    said: Counter[tuple[str, str]] = Counter()
    right: Counter[str] = Counter()
    repaired = tried = 0
    for entry in chosen:
        for seed in range(args.seeds):
            report = diagnose(entry["command"], seed, args.repair)
            findings = [f for f in report.get("findings", []) if f["severity"] != "info"]
            first = findings[0]["id"] if findings else report.get("verdict", "no report")
            said[entry["curve"], first] += 1
            right[entry["curve"]] += first == (entry["id"] or "healthy")
            if findings and args.repair:
                tried += 1
                repaired += any(r["status"] == "verified" for r in findings[0]["remedies"])
            mark = "ok" if first == (entry["id"] or "healthy") else "--"
            fraction = report.get("overhead", {}).get("fraction")
            cost = "" if fraction is None else f"{100 * fraction:.1f} %"
            print(
                f"{mark} {entry['curve']:16}{first:18}{cost:>7}  {' '.join(entry['command'])} --seed {seed}", flush=True
            )
    print()
    for curve in dict.fromkeys(e["curve"] for e in chosen):
        total = sum(n for (c, _), n in said.items() if c == curve)
        counts = ", ".join(f"{what} {n}" for (c, what), n in said.most_common() if c == curve)
        print(f"{curve:16} right {right[curve]}/{total}: {counts}")
    healthy = sum(n for (c, _), n in said.items() if c == "green")
    alarms = sum(n for (c, what), n in said.items() if c == "green" and what not in ("healthy", "inconclusive"))
    low, high = wilson(alarms, healthy)
    print(f"\nfalse alarms on healthy runs: {alarms}/{healthy}, 95 % interval {100 * low:.1f} to {100 * high:.1f} %")
    if args.repair:
        print(f"first findings with a verified remedy: {repaired}/{tried}")


if __name__ == "__main__":
    main()
