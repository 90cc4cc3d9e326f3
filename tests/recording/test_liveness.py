"""A reader tells a live writer from a dead one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradwise.recording.liveness import SILENCE, alive, this_process


def test_this_process_lives_however_long_it_is_silent() -> None:
    assert alive(this_process(), silent=10 * SILENCE)


def test_a_process_that_has_ended_is_dead_however_recent_its_last_sign() -> None:
    code = "import json; from gradwise.recording.liveness import this_process; print(json.dumps(this_process()))"
    import json

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not alive(json.loads(out), silent=0.0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_number_given_to_a_new_process_does_not_revive_the_old_one() -> None:
    assert not alive({**this_process(), "start": "1"}, silent=0.0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_zombie_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os.execvp("sleep", ["sleep", "60"])
    from gradwise.recording.liveness import _start

    writer = {**this_process(), "pid": child, "start": _start(child)}
    assert alive(writer, silent=0.0)
    os.kill(child, 9)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not alive(writer, silent=0.0)
    os.waitpid(child, 0)


def test_a_writer_elsewhere_is_judged_by_its_last_sign_of_life() -> None:
    elsewhere = {**this_process(), "machine": "node7/1"}
    assert alive(elsewhere, silent=SILENCE / 2)
    assert not alive(elsewhere, silent=SILENCE * 2)
