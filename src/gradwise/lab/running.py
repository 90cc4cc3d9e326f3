"""Making the runs that an experiment lacks, one after another, and gathering those that there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gradwise.lab.experiment import Bench, Cell, Experiment, Measures
from gradwise.lab.results import Record, Results, plain, provenance

Runs = dict[str, dict[int, Record]]  # cell -> seed -> run


@dataclass(frozen=True)
class Job:
    """An experiment in one of its two forms, with seeds.

    Args:
        experiment: the experiment.
        quick: its reduced form.
        seeds: 0 … seeds − 1.
        results: where its runs are kept.
        version: gradwise's, for the records.
    """

    experiment: Experiment
    quick: bool
    seeds: int
    results: Results
    version: str

    def order(self) -> Iterator[tuple[Cell, int]]:
        """All runs in the order they are made in: cells by rank, then seed by seed, so that pairs are soon complete."""
        cells = sorted(self.experiment.cells(self.quick), key=lambda cell: cell.rank)
        for _, group in groupby(cells, key=lambda cell: cell.rank):
            alike = list(group)
            yield from ((cell, seed) for seed in range(self.seeds) for cell in alike)

    def wanted(self) -> int:
        """How many runs there shall be."""
        return self.seeds * len(self.experiment.cells(self.quick))

    def find(self, cell: Cell, seed: int) -> Record | None:
        """The run of a cell with a seed, if it was kept."""
        return self.results.find(self.experiment.id, self.quick, cell, seed)

    def lacking(self) -> list[tuple[Cell, int]]:
        """The runs that aren't there yet."""
        return [(cell, seed) for cell, seed in self.order() if self.find(cell, seed) is None]

    def runs(self) -> Runs:
        """The runs to judge: those of the seeds that all cells have, cells of higher rank only where they are complete.

        A comparison pairs seeds, so a seed that only some cells have is left out.
        """
        found: Runs = {}
        for cell, seed in self.order():
            record = self.find(cell, seed)
            if record is not None:
                found.setdefault(cell.name, {})[seed] = record
        cells = sorted(self.experiment.cells(self.quick), key=lambda cell: cell.rank)
        kept: Runs = {}
        seeds: set[int] | None = None
        for _, group in groupby(cells, key=lambda cell: cell.rank):
            alike = list(group)
            common = set.intersection(*(set(found.get(cell.name, {})) for cell in alike))
            if seeds is None:
                seeds = common
            if not seeds or not seeds <= common:
                break
            kept |= {cell.name: {s: found[cell.name][s] for s in sorted(seeds)} for cell in alike}
        return kept

    def make(self, data_dir: Path | None, watch: Callable[[Cell, int, float], None]) -> int:
        """Make what is lacking, but for what other processes are at; how many of those there are is what comes back.

        Args:
            data_dir: where the larger data sets are.
            watch: called now and then with the cell, the seed and the share of that run that is done.
        """
        elsewhere = 0
        for cell, seed in self.lacking():
            with self.results.taken(self.experiment.id, self.quick, cell, seed) as ours:
                if not ours:
                    elsewhere += 1
                elif self.find(cell, seed) is None:
                    self._run(cell, seed, data_dir, watch)
        return elsewhere

    def _run(self, cell: Cell, seed: int, data_dir: Path | None, watch: Callable[[Cell, int, float], None]) -> None:
        watch(cell, seed, 0.0)
        bench = Bench(
            self.quick,
            data_dir,
            lambda share: watch(cell, seed, share),
            self.results.checkpoint(self.experiment.id, self.quick, cell, seed),
        )
        began = time.monotonic()
        measures = plain(self.experiment.measure(cell.settings, seed, bench))
        where = provenance(self.version, time.monotonic() - began)
        record = Record(self.experiment.id, self.quick, cell.name, seed, plain(cell.settings), measures, where)
        self.results.keep(record, cell)


def measures_of(runs: Runs) -> dict[str, dict[int, Measures]]:
    """What an experiment judges: the measures alone."""
    return {cell: {seed: record.measures for seed, record in by_seed.items()} for cell, by_seed in runs.items()}
