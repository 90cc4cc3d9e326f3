"""A study of many short trials on a Ray cluster, kept in PostgreSQL: `python benchmarks/search_cluster.py`.

Starts its own PostgreSQL and a Ray cluster of two nodes on this machine, kills a worker and the driver on the way, and
counts what ran. Every run of the objective appends a line to a side log, so nothing is taken from gradwise's own word.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

DRIVER = """
import json, os, sys, time
import gradwise

given = json.loads(sys.argv[1])


def objective(config):
    log = os.open(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"begin {config['n']} {os.getpid()}\\n".encode())
    time.sleep(given["seconds"])
    os.write(log, f"end {config['n']} {os.getpid()}\\n".encode())
    os.close(log)
    return (config["n"] - 333.3) ** 2


if __name__ == "__main__":
    trials = given["trials"]
    found = gradwise.tune(objective, {"n": list(range(trials))}, method="grid", trials=trials, store=given["store"],
                          engine="ray", address=given["address"], jobs=given["workers"])
    states = [t["state"] for t in found.trials]
    print(json.dumps({"config": found.config, **{state: states.count(state) for state in set(states)}}))
"""


@contextmanager
def parts(workers: int) -> Iterator[tuple[str, str]]:
    """A database's URL and a cluster's address."""
    from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

    from servers import PostgreSQL  # type: ignore[import-not-found,unused-ignore]

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    server = PostgreSQL()
    share = {"num_cpus": -(-workers // 2), "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**share, "include_dashboard": False})
    cluster.add_node(**share)
    try:
        yield server.url("cluster"), cluster.address
    finally:
        cluster.shutdown()
        server.close()


def marks(log: Path, kind: str) -> list[tuple[int, int]]:
    """Number and process of each mark."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(n), int(pid)) for what, n, pid in lines if what == kind]


def main() -> None:
    """The figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long a trial takes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, parts(args.workers) as (store, address):
        log, driver = Path(folder, "side.log"), Path(folder, "drive.py")
        driver.write_text(DRIVER)
        given = {"log": str(log), "store": store, "address": address, **vars(args)}

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, str(driver), json.dumps(given)], cwd=folder, stdout=subprocess.PIPE, text=True
            )

        def until(count: int) -> None:
            while len(marks(log, "end")) < count:
                time.sleep(0.1)

        began = time.monotonic()
        first = start()
        until(args.trials // 4)
        os.kill(marks(log, "begin")[-1][1], signal.SIGKILL)
        print(f"killed a worker after {args.trials // 4} trials")
        until(args.trials // 2)
        first.kill()
        first.wait()
        print(f"killed the driver after {args.trials // 2} trials", flush=True)
        second = start()
        printed, _ = second.communicate()
        seconds = time.monotonic() - began
        begun, ended = Counter(n for n, _ in marks(log, "begin")), Counter(n for n, _ in marks(log, "end"))
        print(f"found {json.loads(printed)}")
        print(f"{len(ended)} of {args.trials} configurations ran to their end, {ended.total()} runs did")
        print(
            f"{begun.total() - args.trials} runs were made again; killed in the middle: {begun.total() - ended.total()}"
        )
        ideal = args.trials * args.seconds / args.workers
        print(
            f"{seconds:.0f} s, {args.trials / seconds:.1f} trials a second; {args.workers} workers alone: {ideal:.0f} s"
        )


if __name__ == "__main__":
    main()
