"""`gradwise doctor` as users meet it: what it says, what it leaves alone, how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from visits import Place, environment, refused

from gradwise.recording.store import Store, StoreError
from gradwise.report.schema import check


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


# the whole visit


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """A visit with repair to a script whose rate is far too high."""
    place = Place(tmp_path_factory.mktemp("sick"))
    done = place.run(
        "doctor", "--repair-budget", "300", "--json", "report.json", "--html", "report.html", "--fail-on", "error",
        "train.py", "plain", "3", "--help",
    )  # fmt: skip
    return place, done, json.loads((place.folder / "report.json").read_text())


def test_the_cause_is_named_with_its_place(sick):
    _, _, report = sick
    check(report)
    assert report["verdict"] == "sick"
    finding = report["findings"][0]
    assert (finding["id"], finding["where"]["file"]) == ("lr-too-high", "train.py")
    line = Path(sick[0].folder / "train.py").read_text().splitlines()[finding["where"]["line"] - 1]
    assert line.startswith("optimizer =")


def test_the_fix_was_tried_and_works(sick):
    _, _, report = sick
    remedy = report["findings"][0]["remedies"][0]
    assert remedy["status"] == "verified"
    assert remedy["intervention"]["lr_scale"] <= 0.1
    assert len(remedy["baseline"]) == len(remedy["outcome"]) == 3
    assert max(remedy["outcome"]) < 1


def test_the_script_is_not_disturbed(sick):
    place, done, _ = sick
    assert done.stdout.splitlines()[0] == "finally"
    assert done.stdout.splitlines()[2:] == ["at its end"]
    assert sorted(p.name for p in place.folder.iterdir()) == [".gradwise", "report.html", "report.json", "train.py"]


def test_a_finding_fails_the_check_where_the_script_did_not(sick):
    assert sick[1].returncode == 1


def test_the_page_is_on_standard_error(sick):
    _, done, report = sick
    assert "✗ sick  train.py plain 3 --help" in done.stderr
    assert "verified" in done.stderr
    assert "gradwise run --apply report.json train.py plain 3 --help" in done.stderr
    assert report["run"] in done.stderr


def test_the_html_has_the_paired_curves(sick):
    place, _, _ = sick
    page = (place.folder / "report.html").read_text()
    assert "The script as it is and with the remedy, one pair of curves per seed." in page


def test_the_store_has_run_trials_and_report(sick):
    place, _, report = sick
    with Store.open(str(place.folder / ".gradwise/runs.db")) as store:
        (run,) = store.runs()
        assert run.id == report["run"]
        assert store.report(run.id) == report
        trials = store.runs(parent=run.id)
    assert {t.seed for t in trials} == {0, 1, 2}
    assert sorted(t.seed for t in trials if not t.intervention) in ([1, 2], [0, 1, 2])


def test_the_report_can_be_remade(sick):
    place, _, report = sick
    again = place.run("report", "last", "--json", "again.json", "--html", "again.html")
    assert (again.returncode, again.stdout) == (0, "")
    assert json.loads((place.folder / "again.json").read_text()) == report
    assert "one pair of curves per seed" in (place.folder / "again.html").read_text()
    page = place.run("report", report["run"][-4:])
    assert "✗ sick" in page.stdout
    assert page.stderr == ""
    for name in ("again.json", "again.html"):
        (place.folder / name).unlink()


def test_the_fix_can_be_applied(sick):
    place, _, report = sick
    done = place.run("run", "--apply", "report.json", "train.py", "plain", "3")
    what = report["findings"][0]["remedies"][0]["intervention"]["lr_scale"]
    assert done.returncode == 0
    assert float(done.stdout.splitlines()[1].split()[1]) < 1
    assert done.stderr.startswith(f"gradwise: running train.py with lr ×{what:g} (report.json, remedy 1 of ")
    assert len(done.stderr.splitlines()) == 1
    with Store.open(str(place.folder / ".gradwise/runs.db")) as store:
        assert store.info(store.resolve("last")).intervention == {"lr_scale": what}


# how the script ends


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("print('hello')", 0, "the script ended without importing torch"),
        ("import sys; sys.exit(3)", 3, "the script failed (exit status 3) without importing torch"),
        ("import os; os._exit(5)", 5, "(exit status 5)"),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV, "the script was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "was ended by SIGTERM"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "was ended by SIGKILL"),
    ],
)
def test_without_torch_one_sentence_and_the_same_end(place, text, status, words):
    done = place.run("doctor", place.write("script.py", text))
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("gradwise: the script ")
    assert words in line


def test_torch_without_training_is_one_sentence(place):
    done = place.run("doctor", place.write("script.py", "import torch; print(torch.ones(2).sum())"))
    assert (done.returncode, done.stdout) == (0, "tensor(2.)\n")
    assert done.stderr == (
        "gradwise: the script ended without taking an optimizer step, so there was no training to watch\n"
    )


@pytest.mark.parametrize(
    ("mode", "status", "words"),
    [
        ("fails", 1, "ValueError: mine"),
        ("crash", -signal.SIGSEGV, "os._exit or a crash"),
    ],
)
def test_what_there_is_of_a_broken_run_is_judged(place, mode, status, words):
    done = place.run("doctor", "--no-repair", "train.py", mode, "0.05")
    assert done.returncode == status
    assert "finally" in done.stdout
    assert words in done.stderr
    assert "gradwise" not in done.stderr.partition("Traceback")[2].partition("ValueError")[0]
    assert any(verdict in done.stderr for verdict in ("✓ healthy", "? inconclusive"))


def test_ctrl_c_is_the_scripts_and_then_comes_the_diagnosis(place):
    visit = place.start("doctor", "train.py", "wait", "0.05")
    assert visit.stdout is not None
    assert visit.stdout.readline() == "waiting\n"
    visit.send_signal(signal.SIGINT)
    out, err = visit.communicate(timeout=200)
    assert visit.returncode == -signal.SIGINT
    assert out.splitlines() == ["finally", "at its end"]
    assert "KeyboardInterrupt" in err
    assert "train.py wait 0.05" in err
    assert "gradwise/cli" not in err


def test_ctrl_c_during_repair_ends_only_that(place):
    visit = place.start("doctor", "--repair-budget", "200", "train.py", "plain", "3")
    while visit.poll() is None and not trials_of_last(place):
        time.sleep(0.05)
    visit.send_signal(signal.SIGINT)
    _, err = visit.communicate(timeout=200)
    assert visit.returncode == 0
    assert "lr-too-high" in err
    assert "not tried to the end: interrupted" in err
    assert "Traceback" not in err


def trials_of_last(place: Place) -> list:
    try:
        with Store.open(str(place.folder / ".gradwise/runs.db"), create=False) as store:
            return store.runs(parent=store.resolve("last"))
    except StoreError:
        return []


def test_while_it_runs_a_terminal_shows_how_it_stands(place):
    script = place.write("script.py", "print('mine', flush=True); input()")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        visit = subprocess.Popen(
            place.command("doctor", script), cwd=place.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=theirs, env={**environment(), "TERM": "xterm"},
        )  # fmt: skip
        shown = b""
        while b"step 0" not in shown:
            shown += terminal.read(4096)
        out, _ = visit.communicate(b"\n", timeout=200)
        os.close(theirs)
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while part := terminal.read(4096):
                shown += part
    assert (visit.returncode, out) == (0, b"mine\n")
    assert b"step 0" in shown
    assert shown.rstrip().endswith(b"no training to watch")


def test_without_room_for_files_the_script_runs_all_the_same(place):
    script = place.write("script.py", "import sys; print('mine'); sys.exit(6)")
    full = (
        "import errno, gradwise.trials.process as p\n"
        "def mkdtemp(**_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "p.tempfile = type('Full', (), {'mkdtemp': mkdtemp})\n"
        "from gradwise.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", full, "doctor", "--no-repair", script],
        cwd=place.folder, capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (6, "mine\n")
    assert done.stderr == (
        "gradwise: no folder for temporary files can be made (No space left on device), "
        "so the script runs without being watched\n"
    )


# what trials may not touch


def test_what_cannot_be_isolated_is_not_tried(place, tmp_path_factory):
    log = tmp_path_factory.mktemp("elsewhere") / "log.txt"
    text = (place.folder / "train.py").read_text()
    place.write("outside.py", text + f"\nopen({str(log)!r}, 'a').write('ran ')\n")
    done = place.run("doctor", "--json", "r.json", "outside.py", "plain", "3")
    assert done.returncode == 0
    assert log.read_text() == "ran "
    remedies = json.loads((place.folder / "r.json").read_text())["findings"][0]["remedies"]
    assert {r["status"] for r in remedies} == {"suggested"}
    assert all(r["reason"].startswith("not tried: ") for r in remedies)
    assert all(str(log) in r["reason"] and "--allow-side-effects" in r["reason"] for r in remedies)


# the store


def test_a_locked_store_is_a_note_and_a_budget_of_steps_ends_the_script_cleanly(place):
    (place.folder / ".gradwise").mkdir()
    url = str(place.folder / ".gradwise/runs.db")
    Store.open(url).close()
    lock = sqlite3.connect(url, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    impatient = "import gradwise.recording.keeper as k; k._PATIENT = 0.5; from gradwise.cli import main; main()"
    words = ["doctor", "--no-repair", "--max-steps", "60", "--json", "r.json", "train.py", "plain", "0.05"]
    done = subprocess.run(
        [sys.executable, "-c", impatient, *words], cwd=place.folder, capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["finally", "at its end"])
    assert json.loads((place.folder / "r.json").read_text())["steps"] == 60
    assert "stopped early, as asked" in done.stderr
    assert "The recording was not kept: another process has kept the store" in " ".join(done.stderr.split())
    assert "gradwise report" not in done.stderr  # there is nothing to make one from


@pytest.mark.parametrize("url", ["foo://nowhere", "/nowhere/at/all.db"])
def test_a_store_that_is_nowhere_is_a_note(place, url):
    done = place.run("doctor", "--store", url, place.write("script.py", "print('hello')"))
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert len(done.stderr.splitlines()) == 2
    assert "The recording was not kept" in done.stderr


# what the user types


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.py"], "there is no script 'none.py'"),
        (["."], "without a __main__.py"),
        (["--metric", "(", "train.py"], "--metric '(' is no regular expression"),
        (["--html", "none/r.html", "train.py"], "there is no folder"),
        (["--json", ".", "train.py"], "is a folder: name the file"),
        (["--seeds", "2", "train.py"], "--seeds"),
        (["--maximize", "train.py"], "--maximize"),
        (["--fail-on", "info", "train.py"], "--fail-on"),
        (["--unknown", "train.py"], "--unknown"),
        ([], "SCRIPT"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(place, capsys, monkeypatch, words, said):
    assert said in refused(capsys, monkeypatch, place.folder, "doctor", *words)
    assert not (place.folder / ".gradwise").exists()


def test_everything_after_the_script_is_the_scripts(place):
    show = place.write("show.py", "import sys; print(sys.argv[1:])")
    words = ["--help", "--no-repair", "--html", "x", "--", "-m", "-q"]
    done = place.run("doctor", "-q", show, *words)
    assert done.stdout == f"{words}\n"
    done = place.run("doctor", "--quiet", "-m", "show", *words)
    assert done.stdout == f"{words}\n"
    assert done.stderr == ""


def test_standard_input_is_the_scripts(place):
    done = place.run("doctor", place.write("ask.py", "print(input().upper())"), input="yes\n")
    assert done.stdout == "YES\n"


def test_a_reader_that_has_gone_changes_nothing(place):
    script = place.write("script.py", "import sys; sys.stderr.close()")
    visit = place.start("doctor", script)
    assert visit.stderr is not None
    visit.stderr.close()
    assert visit.wait(60) == 0


def test_an_error_of_ours_is_one_sentence_and_no_other_end(place):
    place.write("sitecustomize.py", "")
    breaking = (
        "import sys, gradwise.diagnosis as d\n"
        "def diagnose(*a): raise RuntimeError('broken on\\npurpose')\n"
        "d.diagnose = diagnose\n"
        "sys.argv[0] = 'gradwise'\n"
        "from gradwise.cli import main; main()"
    )
    script = place.write("script.py", "import sys; print('mine'); sys.exit(4)")
    for debug in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", breaking, "doctor", script],
            cwd=place.folder, capture_output=True, text=True, env={"GRADWISE_DEBUG": debug, "PATH": "/usr/bin"},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (4, "mine\n")
        assert ("Traceback" in done.stderr) == (debug == "1")
        last = done.stderr.splitlines()[-1]
        assert last.startswith(
            "gradwise: an error of gradwise's own, not of your script (RuntimeError: broken on purpose)"
        )
        assert "report it" in last


def test_help_is_light():
    code = (
        "import sys\n"
        "sys.argv = ['gradwise', *sys.argv[1:]]\n"
        "from gradwise.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print([m for m in ('torch', 'numpy', 'sqlalchemy', 'plotly') if m in sys.modules])"
    )
    for words in (["--help"], ["doctor", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
