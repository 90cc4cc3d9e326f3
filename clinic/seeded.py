"""Runs a script with other luck: `python seeded.py OFFSET SCRIPT ARGS…` adds the offset to each seed that it sets.

A script that sets none is seeded before it starts.
"""

from __future__ import annotations

import os
import runpy
import sys

from gradwise.trials.importing import after_import
from gradwise.trials.seeds import Seeds


def main() -> None:
    offset, script = int(sys.argv[1]), sys.argv[2]
    seeds = Seeds(lambda kind, data: None, offset)
    seeds.install_random()
    after_import("numpy.random", seeds.install_numpy)
    after_import("torch", seeds.install_torch)
    sys.argv = sys.argv[2:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
