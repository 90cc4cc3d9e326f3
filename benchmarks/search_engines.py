"""What gradwise costs beside the runs themselves: `python benchmarks/search_engines.py` (minutes).

Two tables. Trials a second of one Python objective by worker processes: gradwise's, Optuna's own `n_jobs` (threads, and
processes that share a study, its documentation's way), Ray Tune; interleaved, medians. And seconds a trial of an
unmodified script takes beyond the same script started by hand, by the clock and in processor time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SPACE: dict[str, Any] = {"lr": "1e-4..1", "momentum": "0.5..0.99"}


def objective(config: Mapping[str, Any]) -> float:
    """A small least-squares problem trained in numpy: about ten milliseconds."""
    import numpy as np

    luck = np.random.default_rng(0)
    x = luck.standard_normal((256, 16))
    y, w, v = x @ luck.standard_normal(16), np.zeros(16), np.zeros(16)
    for _ in range(400):
        v = float(config["momentum"]) * v + x.T @ (x @ w - y) / len(x)
        w = w - 0.1 * float(config["lr"]) * v
    return float(np.mean((x @ w - y) ** 2))


def gradwise_processes(trials: int, jobs: int, folder: str) -> None:
    """Worker processes of gradwise, the study on disk."""
    import gradwise

    found = gradwise.tune(
        objective, SPACE, method="random", trials=trials, jobs=jobs, store=f"sqlite:///{folder}/gradwise.db"
    )
    assert len(found.trials) == trials


def gradwise_ray(trials: int, jobs: int, folder: str) -> None:
    """Workers of gradwise on a Ray cluster."""
    import gradwise

    address = os.environ["GRADWISE_BENCH_RAY"]
    store = f"sqlite:///{folder}/gradwise-ray.db"
    found = gradwise.tune(
        objective, SPACE, method="random", trials=trials, jobs=jobs, engine="ray", address=address, store=store
    )
    assert len(found.trials) == trials


def _asked(trial: Any) -> float:
    return objective(
        {"lr": trial.suggest_float("lr", 1e-4, 1, log=True), "momentum": trial.suggest_float("momentum", 0.5, 0.99)}
    )


def optuna_threads(trials: int, jobs: int, folder: str) -> None:
    """Optuna's `n_jobs`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{folder}/threads.db", sampler=optuna.samplers.RandomSampler())
    study.optimize(_asked, n_trials=trials, n_jobs=jobs)


def _optuna_worker(url: str, trials: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.load_study(study_name="s", storage=url, sampler=optuna.samplers.RandomSampler()).optimize(
        _asked, n_trials=trials
    )


def optuna_processes(trials: int, jobs: int, folder: str) -> None:
    """Processes that share a study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{folder}/processes.db"
    optuna.create_study(storage=url, study_name="s")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for made in [pool.submit(_optuna_worker, url, trials // jobs) for _ in range(jobs)]:
            made.result()


def ray_tune(trials: int, jobs: int, folder: str) -> None:
    """Ray Tune, random search."""
    import logging

    import ray
    from ray import tune

    ray.init(address=os.environ["GRADWISE_BENCH_RAY"], log_to_driver=False, logging_level=logging.ERROR)
    try:
        tuner = tune.Tuner(
            tune.with_resources(lambda config: {"loss": objective(config)}, {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-4, 1), "momentum": tune.uniform(0.5, 0.99)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=jobs, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        assert len(tuner.fit()) == trials
    finally:
        ray.shutdown()


WAYS: dict[str, Callable[[int, int, str], None]] = {
    "gradwise, processes": gradwise_processes,
    "Optuna, n_jobs": optuna_threads,
    "Optuna, processes": optuna_processes,
    "gradwise, Ray": gradwise_ray,
    "Ray Tune": ray_tune,
}

SCRIPT = """
import torch
torch.manual_seed(0)
x = torch.randn(128, 8)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for k in range(100):
    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
with torch.no_grad():
    print("val", torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).item())
"""


def _ray_is_there() -> bool:
    try:
        import ray.cluster_utils
        import ray.tune  # noqa: F401
    except ImportError:
        return False
    return True


def throughput(trials: int, jobs: int, repeats: int) -> None:
    """The first table."""
    cluster = None
    ways = dict(WAYS)
    if _ray_is_there():
        from ray.cluster_utils import Cluster

        share = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": 100_000_000}
        cluster = Cluster(initialize_head=True, head_node_args=share)
        os.environ["GRADWISE_BENCH_RAY"] = cluster.address
    else:
        del ways["gradwise, Ray"], ways["Ray Tune"]
        print("Ray Tune is not installed (pip install 'ray[tune]'): left out")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                way(trials, jobs, folder)
                rates[name].append(trials / (time.perf_counter() - began))
    if cluster is not None:
        cluster.shutdown()
    print(f"\n{trials} trials, {jobs} at a time, start-up included; median of {repeats}\n")
    print(f"{'':22} {'trials/s':>9}  {'gradwise’s share of it':>22}")
    for name, found in rates.items():
        peer = "gradwise, Ray" if "Ray" in name else "gradwise, processes"
        ratio = statistics.median(a / b for a, b in zip(rates[peer], found, strict=True))
        print(f"{name:22} {statistics.median(found):9.1f}  {ratio:22.2f}")


def _ours() -> float:
    """Processor time of this process."""
    return time.process_time()


def _theirs() -> float:
    """Processor time of processes that it started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def overhead(runs: int) -> None:
    """The second table."""
    # Not among thousands of others in /tmp: a trial's view of the disk has them all.
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        Path(folder, "train.py").write_text(SCRIPT)
        found: dict[str, list[float]] = {}
        from gradwise.search.jobs import Job
        from gradwise.search.methods import Method
        from gradwise.search.scripted import Task
        from gradwise.search.space import Space
        from gradwise.search.study import Study
        from gradwise.trials.process import Target

        space = Space.of({"lr": "1e-4..1"})
        task = Task(Target("train.py", cwd=folder), space)
        study = Study(f"sqlite:///{folder}/../{Path(folder).name}.db", "s", space, Method("tpe", trials=runs))
        with task.begun() as scripted:
            scripted.task = Task(task.target, space, facts=scripted.reference()[1])
            for _ in range(runs):
                began, theirs = time.perf_counter(), _theirs()
                subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, capture_output=True)
                alone, alone_cpu = time.perf_counter() - began, _theirs() - theirs
                began, ours, theirs = time.perf_counter(), _ours(), _theirs()
                row = study.ask()
                assert row is not None
                asked, asked_cpu = time.perf_counter(), _ours()
                result = scripted(Job("a", row.config), lambda k, value: False)
                made, made_cpu = time.perf_counter(), _ours()
                study.tell(row.number, result)
                ended, ended_cpu = time.perf_counter(), _ours()
                figures = {
                    "the script by hand": (alone, alone_cpu),
                    "a trial beyond that": (ended - began - alone, ended_cpu - ours + _theirs() - theirs - alone_cpu),
                    "  asking and telling": (asked - began + ended - made, asked_cpu - ours + ended_cpu - made_cpu),
                    "  the driver, while it runs": (0.0, made_cpu - asked_cpu),
                    "  watching, in its process": (0.0, _theirs() - theirs - alone_cpu),
                }
                for name, (wall, cpu) in figures.items():
                    found.setdefault(f"{name}|clock", []).append(wall)
                    found.setdefault(f"{name}|cpu", []).append(cpu)
        study.close()
        Path(f"{folder}.db").unlink(missing_ok=True)
        for end in ("-wal", "-shm", "-lock"):
            Path(f"{folder}.db{end}").unlink(missing_ok=True)
    print(f"\nan unmodified script, {runs} pairs, medians in ms\n\n{'':30} {'by the clock':>13} {'processor':>10}")
    for name in dict.fromkeys(key.partition("|")[0] for key in found):
        wall, cpu = (1000 * statistics.median(found[f"{name}|{by}"]) for by in ("clock", "cpu"))
        print(f"{name:30} {f'{wall:.0f}' if wall else '':>13} {cpu:10.0f}")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=15, help="pairs of runs of the script")
    parser.add_argument("--only-overhead", action="store_true", help="the second table alone")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not args.only_overhead:
        throughput(args.trials, args.jobs, args.repeats)
    overhead(args.runs)


if __name__ == "__main__":
    main()
