"""`gradwise claims`: put the documents' claims to the test, again, on real data."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradwise.cli.common import refuse, say, speaking_plainly, writable

if TYPE_CHECKING:
    from gradwise.lab.account import Account
    from gradwise.lab.experiment import Cell, Experiment
    from gradwise.lab.results import Results
    from gradwise.lab.running import Job

_SAID_EVERY = 10.0  # seconds between lines where there is no terminal


def claims(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLAIM", help="Which claims, as in X5 X7; all for every one; none lists them."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A reduced form of the same experiment, on bundled data.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Seeds to run.", show_default="3 or what the claim needs")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes at a time.")] = 1,
    stored: Annotated[bool, typer.Option("--stored", help="Run nothing: show what the stored runs say.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where larger data sets lie (or set GRADWISE_DATA).",
            envvar="GRADWISE_DATA",
            show_envvar=False,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where runs are kept.", show_default="the user's folder of data"),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as one HTML file too.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON too, with all runs.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pages of documentation, with pictures, into DIR.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; print the verdicts only.")] = False,
    measure_only: Annotated[bool, typer.Option("--measure-only", hidden=True)] = False,
) -> None:
    """Put textbook claims on optimization to the test on real data.

    Prints the claim and its source, what was measured over several seeds, and the verdict: holds, holds with
    conditions, does not hold; or undecided, where the seeds can't tell. Each run is stored as it ends: the same command
    goes on where it was ended, and more seeds cost only those.
    """
    from gradwise.lab.results import Results, default_folder

    writable(html, "--html")
    writable(json, "--json")
    if page is not None and (page.exists() and not page.is_dir()):
        refuse(f"--page {page} is a file: name a folder")
    kept = Results(results if results is not None else default_folder())
    if not names:
        if page or html or json:
            refuse("name the claims to write about, or all")
        with speaking_plainly():
            _list(kept)
        return
    with speaking_plainly():
        work = _Work([_experiment(n) for n in _named(names)], kept, quick, seeds, data_dir, jobs, quiet or measure_only)
        if measure_only:
            raise SystemExit(work.measure_only())
        status = work.make(stored, html, json, page)
    raise SystemExit(status)


def _named(names: Sequence[str]) -> list[str]:
    from gradwise.lab import WHERE

    return list(WHERE) if any(n.lower() == "all" for n in names) else list(dict.fromkeys(n.upper() for n in names))


def _experiment(name: str) -> Experiment:
    from gradwise.lab import find

    try:
        return find(name)
    except KeyError as error:
        refuse(str(error.args[0]))


def _job(experiment: Experiment, quick: bool, seeds: int | None, results: Results) -> Job:
    from gradwise import __version__
    from gradwise.lab.running import Job

    return Job(experiment, quick, seeds or experiment.seeds, results, __version__)


def _list(results: Results) -> None:
    from gradwise.lab import WHERE
    from gradwise.lab.account import account
    from gradwise.legible import duration
    from gradwise.report.claims import form, render_list, word

    rows = []
    for name in WHERE:
        experiment = _experiment(name)
        best = None
        for quick in (False, True):
            job = _job(experiment, quick, None, results)
            if best is None and job.runs():
                best = account(job).data
        rows.append(
            {
                "id": experiment.id,
                "title": experiment.title,
                "time": [duration(60 * minutes) for minutes in experiment.minutes],
                "needs": ", ".join(experiment.data),
                "verdict": f"{word(best)} ({form(best)})" if best else "",
            }
        )
    render_list(rows)


class _Work:
    """The claims of one command."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        results: Results,
        quick: bool,
        seeds: int | None,
        data_dir: Path | None,
        processes: int,
        quiet: bool,
    ) -> None:
        self.jobs = [_job(e, quick, seeds, results) for e in experiments]
        self.data_dir, self.processes, self.quiet = data_dir, processes, quiet
        self.failed: list[str] = []

    def make(self, stored: bool, html: Path | None, json: Path | None, page: Path | None) -> int:
        """Make what is lacking, print, write; the exit status."""
        from gradwise.lab.account import account

        interrupted = False
        found = []
        for job in self.jobs:
            if not stored and not interrupted:
                interrupted = self._run(job)
            if interrupted and not job.runs():
                continue
            each = account(job)
            found.append(each)
            self._print(each)
        self._write([f for f in found if f.runs], html, json, page)
        if interrupted:
            return 130
        return 1 if self.failed else 0

    def measure_only(self) -> int:
        """Make runs beside another process that reports."""
        for job in self.jobs:
            if self._run(job):
                return 130
        return 0

    def _run(self, job: Job) -> bool:
        """Make the runs that a claim lacks; whether it was interrupted."""
        from gradwise.lab.data import DataError

        lacking = len(job.lacking())
        if not lacking:
            return False
        try:
            with self._beside(job, min(self.processes, lacking) - 1), _Progress(job, self.quiet) as progress:
                _one_thread()
                while job.make(self.data_dir, progress.tell):
                    progress.waiting()
                    time.sleep(0.5)
        except DataError as error:
            if len(self.jobs) == 1:
                refuse(f"{job.experiment.id}: {error}; --quick runs without it" if not job.quick else str(error))
            say(f"{job.experiment.id} is left out: {error}")
            self.failed.append(job.experiment.id)
        except KeyboardInterrupt:
            done, name = job.wanted() - len(job.lacking()), job.experiment.id
            say(f"ended: {done} of {job.wanted()} runs of {name} are kept; the same command goes on from here")
            return True
        return False

    @contextmanager
    def _beside(self, job: Job, many: int) -> Iterator[None]:
        """Other processes that take runs too; they end when there are none left, or with this one."""
        command = [sys.executable, "-m", "gradwise", "claims", job.experiment.id, "--measure-only"]
        command += ["--seeds", str(job.seeds), "--results", str(job.results.folder)]
        command += (["--quick"] if job.quick else []) + (["--data-dir", str(self.data_dir)] if self.data_dir else [])
        # What is wrong with a run, this process meets and tells itself.
        nowhere = subprocess.DEVNULL
        helpers = [subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere) for _ in range(many)]
        try:
            yield
        finally:
            for helper in helpers:
                helper.terminate()
                helper.wait()

    def _print(self, each: Account) -> None:
        from gradwise.report.claims import render_claim, word

        with suppress(BrokenPipeError):
            if self.quiet:
                print(f"{each.data['id']} {word(each.data)}")
            else:
                render_claim(each.data, each.figures)

    def _write(self, found: Sequence[Account], html: Path | None, json: Path | None, page: Path | None) -> None:
        from gradwise.lab import pages
        from gradwise.report.claims import markdown, md_summary, write_claims_html, write_claims_json
        from gradwise.report.picture import still

        if (html or json or page) and not found:
            say("nothing is written: there are no runs to write about")
            return
        try:
            if html:
                write_claims_html(html, [(f.data, f.figures) for f in found])
            if json:
                write_claims_json(json, [f.to_json() for f in found])
            if page:
                for each in found:
                    pages.store(page, each)
                written = pages.write(page, markdown, still, md_summary)
                say(f"wrote {len(written)} files, {page / 'index.md'} among them")
        except OSError as error:
            say(f"cannot write {error.filename}: {error.strerror}")
            raise SystemExit(1) from None


def _one_thread() -> None:
    """A run's figures shouldn't depend on how many cores there are."""
    import torch

    torch.set_num_threads(1)


class _Progress:
    """How far the runs of a claim are: a line at the bottom of the terminal, else a line now and then."""

    def __init__(self, job: Job, quiet: bool) -> None:
        from gradwise.report.live import LiveLine

        self.job, self.quiet = job, quiet
        self.live = LiveLine() if not quiet else None
        self.began, self.said, self.counted = time.monotonic(), time.monotonic(), 0.0
        self.before: float = job.wanted() - len(job.lacking())
        self.done = self.before
        self.timed = False

    def __enter__(self) -> _Progress:
        if self.live is not None:
            self.live.__enter__()
            if self.before:
                say(f"{self.job.experiment.id}: {self.before} of {self.job.wanted()} runs were made before")
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.close()

    def tell(self, cell: Cell, seed: int, share: float) -> None:
        """A run is under way."""
        now = time.monotonic()
        if share == 0.0 or now - self.counted > 1.0:  # other processes make runs as well
            self.done, self.counted = self.job.wanted() - len(self.job.lacking()), now
        if share > 0.0 and not self.timed:  # what was done before, maybe from a checkpoint, took another process's time
            self.timed, self.began, self.before = True, now, self.done + share
        self._show(f"{cell.name}, seed {seed}: {share:.0%}", self.done + share)

    def waiting(self) -> None:
        """Only other processes are at work."""
        self.done = self.job.wanted() - len(self.job.lacking())
        self._show("waiting for other processes", self.done)

    def _show(self, doing: str, done: float) -> None:
        from gradwise.legible import duration

        if self.live is None:
            return
        now, wanted = time.monotonic(), self.job.wanted()
        made = done - self.before
        left = duration((now - self.began) * (wanted - done) / made) if made > 0.05 else "?"
        words = f"{self.job.experiment.id} · run {min(int(done) + 1, wanted)} of {wanted} · {doing} · {left} left"
        self.live.update(words)
        if not sys.stderr.isatty() and now - self.said > _SAID_EVERY:
            self.said = now
            say(words)
