"""Trials on a Ray cluster of two nodes, with the study in PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.visits import Place, refused
from gradwise.search.cluster import RayCluster, Share, _hash_of, _missing
from gradwise.search.functions import Function
from gradwise.search.jobs import EngineError, Job, Result
from gradwise.search.scripted import Task
from gradwise.search.space import Space
from gradwise.trials.process import Target
from search import tunable
from search.driven import Drive, answer, finished, kill
from servers import PostgreSQL, free_port
from servers import RayCluster as Cluster

# With PostgreSQL's, so that one of pytest's processes starts each server once.
pytestmark = pytest.mark.xdist_group("postgresql")


def test_workers_and_the_driver_are_killed(postgresql: PostgreSQL, ray_cluster: Cluster, tmp_path: Path) -> None:
    url = postgresql.url("ray")
    where = {"store": url, "engine": "ray", "address": ray_cluster.address, "timeout": 8.0}
    drive = Drive(tmp_path, where, hangs=11, kills=22)
    first = drive.start()
    os.kill(drive.until(5, "begin"), signal.SIGKILL)  # a worker
    drive.until(30)
    kill(first)
    before = finished(url)
    found = answer(drive.start())
    states = {t["config"]["n"]: (t["state"], t.get("problem", "")) for t in found["trials"]}
    assert sorted(states) == list(range(1, 51))
    assert states[11] == ("failed", "it took longer than 8 s")
    assert states[22][0] == "failed"
    assert "its worker died" in states[22][1]
    assert {n: said for n, said in states.items() if said[0] != "complete" and n not in (11, 22)} == {}
    assert found["config"] == {"n": 7}
    begun, ended = drive.marks("begin"), drive.marks("end")
    assert begun[22] == 3  # what kills its workers is tried three times
    assert all(begun[n] == 1 for n in before)
    assert set(ended) == set(range(1, 51)) - {11, 22}
    # Made twice: what a killed worker had under way, and what the killed driver's two had.
    assert ended.total() + 1 <= sum(often for n, often in begun.items() if n not in (11, 22)) + 1 <= 48 + 1 + 2 + 1


def test_a_script_is_tuned_on_a_cluster(postgresql: PostgreSQL, ray_cluster: Cluster, tmp_path: Path) -> None:
    place = Place(tmp_path)
    tunable.write(tmp_path)
    (tmp_path / "big.bin").write_bytes(b"x" * 1000)
    words = (
        "tune",
        "--engine",
        "ray",
        "--address",
        ray_cluster.address,
        "--upload",
        "--seeds",
        "0",
        "--json",
        "out.json",
    )
    done = place.run(*words, "--store", postgresql.url("script"), "--lr", "0.1", "train.py")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(t["config"]["lr"], t["state"]) for t in report["trials"]] == [(0.1, "complete")]
    assert report["own"]["value"] > min(t["value"] for t in report["trials"])
    assert "gradwise@" in report["study"]["store"]


@pytest.fixture
def connected(ray_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, connected to once for several engines."""
    import ray

    ray.init(address=ray_cluster.address, log_to_driver=False)
    yield ray_cluster
    ray.shutdown()


def engine_results(engine: RayCluster, *jobs: Job, on_value: Any = lambda job, k, value: False) -> dict[str, Result]:
    for job in jobs:
        engine.submit(job)
    found = {}
    while len(found) < len(jobs):
        done = engine.next_done(on_value, timeout=1.0)
        if done is not None:
            found[done[0].key] = done[1]
    return found


def test_runs_report_and_are_ended(connected: Cluster) -> None:
    def objective(config: dict[str, Any], report: Any) -> float:
        for k in range(1, 10):
            report(k, config["n"] + 1 / k)
        return float(config["n"])

    engine = RayCluster(Function(objective))
    assert engine.slots == 2
    seen: list[tuple[str, int]] = []

    def on_value(job: Job, k: int, value: float) -> bool:
        seen.append((job.key, k))
        return job.key == "b" and k == 4

    found = engine_results(engine, Job("a", {"n": 1}), Job("b", {"n": 2}), on_value=on_value)
    assert found["a"] == Result(1.0, steps=9)
    assert found["b"] == Result(None, steps=4, pruned=True)
    assert sorted(seen) == [("a", k) for k in range(1, 10)] + [("b", k) for k in range(1, 5)]
    engine.submit(Job("c", {"n": 3}))
    engine.cancel("c")
    assert engine.next_done(on_value, timeout=0.1) is None
    assert engine_results(engine, Job("d", {"n": 4}))["d"].value == 4.0
    engine.close()


def test_what_a_cluster_cannot_do_is_said(connected: Cluster, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no machine of the cluster has 64 cores and 0 GPUs"):
        RayCluster(Function(len), share=Share(64))
    with pytest.raises(EngineError, match="connected, and it is already"):
        RayCluster(Function(len), upload=str(tmp_path))
    tunable.write(tmp_path)
    task = Task(Target("train.py", cwd=str(tmp_path)), Space.of({"lr": "0.1"}))
    digest = _hash_of(task)
    assert _missing(task, digest) == ""
    engine = RayCluster(task)
    (tmp_path / "train.py").write_text("pass")
    engine.submit(Job("a"))
    with pytest.raises(EngineError, match=r"has another train.py in .*: share the folder, or have it copied"):
        engine.next_done(lambda job, k, value: False)
    engine.close()
    (tmp_path / "train.py").unlink()
    assert "has no script train.py" in _missing(task, digest)
    tmp_path.rmdir()
    assert "has no folder" in _missing(task, digest)


def test_addresses_that_are_wrong_are_said(capsys, monkeypatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    Place(tmp_path)
    words = ("tune", "--lr", "0.1", "--engine", "ray", "--address")
    for address, said in ((f"127.0.0.1:{free_port()}", "there is no Ray cluster at"), ("local", "is no address")):
        assert said in refused(capsys, monkeypatch, tmp_path, *words, address, "train.py", "ok", "0.1")


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'gradwise\[ray\]'"):
        RayCluster(Function(len))
