"""A child under watch is the user's own process; a trial is out of sight. No torch here: that is `test_child`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradwise.recording.frames import Message
from gradwise.trials import process
from gradwise.trials.process import Ended, Interrupted, NotStarted, Target

ABOUT = """
    import json, os, sys
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "name": __name__, "file": __file__, "cwd": os.getcwd(),
        "spec": str(__spec__ and __spec__.name), "environment": dict(os.environ), "flags": list(sys.flags),
        "modules": sorted(m for m in sys.modules if m in ("torch", "numpy", "sitecustomize", "usercustomize")),
        "finders": [type(f).__name__ for f in sys.meta_path], "orig_argv": sys.orig_argv,
    }))
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "script.py") -> str:
        Path(name).write_text(textwrap.dedent(text))
        return name

    return write


def watch(name: str, *argv: str, module: bool = False, **orders) -> tuple[Ended, list]:
    frames: list = []
    limit = orders.pop("max_time", None)
    ended = process.watch(Target(name, argv, module), orders, frames.extend, max_time=limit)
    return ended, frames


def trial(name: str, timeout: float = 120.0, **environment: str) -> Ended:
    return process.trial(Target(name), {}, lambda frames: None, {**os.environ, **environment}, timeout)


@pytest.fixture
def jump(monkeypatch) -> None:
    """The supervisor's clock jumps a thousand seconds as soon as the script has made the file `there`."""

    def now() -> float:
        return time.monotonic() + (1000.0 if Path("there").exists() else 0.0)

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=now))


def later(action: str, wait: float = 0.5) -> subprocess.Popen[bytes]:
    """Have another process do something to this one (`{pid}`) after a while."""
    return subprocess.Popen(["sh", "-c", f"sleep {wait}; {action.format(pid=os.getpid())}"])


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError('mine')", 1),
        ("import os; os._exit(5)", 5),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_the_script_ends_as_it_ends(script, text, status):
    assert watch(script(text))[0].exit == status


def test_watched_it_sees_what_it_sees_under_python(script, capfd, monkeypatch):
    for path in (None, os.pathsep.join(["/some/where", "/else/where"])):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if path:
            monkeypatch.setenv("PYTHONPATH", path)
        name = script(ABOUT)
        subprocess.run([sys.executable, name, "--a", "b"], check=True, env=dict(os.environ))
        plain = json.loads(capfd.readouterr().out)
        watch(name, "--a", "b")
        watched = json.loads(capfd.readouterr().out)
        assert watched.pop("finders")[1:] == plain.pop("finders")  # one of ours waits for torch
        if "sitecustomize" not in plain["modules"]:
            watched["modules"] = [m for m in watched["modules"] if m != "sitecustomize"]
        for about in (plain, watched):
            about |= {f"env {k}": v for k, v in about.pop("environment").items()}
        differing = {k: (plain.get(k), watched.get(k)) for k in {*plain, *watched} if plain.get(k) != watched.get(k)}
        assert differing == {}


def test_a_module_runs_as_with_python_m(script, capfd):
    Path("package").mkdir()
    script("", "package/__init__.py")
    script(ABOUT, "package/tool.py")
    subprocess.run([sys.executable, "-m", "package.tool", "x"], check=True)
    plain = json.loads(capfd.readouterr().out)
    watch("package.tool", "x", module=True)
    watched = json.loads(capfd.readouterr().out)
    for key in ("argv", "path", "name", "file", "spec"):
        assert watched[key] == plain[key]


def test_the_users_own_sitecustomize_still_runs(script, capfd, monkeypatch):
    Path("site").mkdir()
    script("import builtins; builtins.own = 'mine'", "site/sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(Path("site").absolute()))
    watch(script("import sys; print(own, sys.modules['sitecustomize'].__file__)"))
    assert capfd.readouterr().out.split()[0] == "mine"


def test_nothing_of_ours_imports_what_the_script_has_not(script, capfd):
    watch(script("import sys; print(sorted({'torch', 'numpy', 'sqlalchemy'} & set(sys.modules)))"))
    assert capfd.readouterr().out.strip() == "[]"


def test_it_tells_who_it_is(script):
    ended, frames = watch(script("pass"))
    facts = {k: v for f in frames if isinstance(f, Message) and f.kind == "facts" for k, v in f.data.items()}
    assert facts["reached_end"] is True
    assert facts["pid"] > 0
    assert ended.problem == ""


def test_a_signal_to_us_is_passed_on(script):
    name = script(
        """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
        """
    )
    ended, _ = watch(name)
    assert (ended.exit, ended.told) == (7, signal.SIGTERM)


def test_being_stopped_and_continued_is_no_signal(script):
    other = later("kill -STOP {pid}; sleep 0.7; kill -CONT {pid}")
    ended, _ = watch(script("import time; time.sleep(1.5); print('done')"))
    other.wait()
    assert (ended.exit, ended.told) == (0, 0)


def test_a_signal_that_comes_as_the_script_ends_is_not_ours(script):
    for _ in range(3):
        killer = later("for i in 1 2 3 4 5 6 7 8; do kill -USR1 {pid}; sleep 0.01; done", 0.05)
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            ended, _ = watch(script("import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)"))
        finally:
            killer.wait()
            signal.signal(signal.SIGUSR1, before)
        assert ended.exit in (0, -signal.SIGUSR1)  # before it says so, the script minds


def test_without_steps_time_ends_it_as_ctrl_c_would(script, jump):
    name = script(
        """
        import time
        try:
            open("there", "w")
            time.sleep(60)
        except KeyboardInterrupt:
            raise SystemExit(4)
        """
    )
    ended, _ = watch(name, max_time=100.0)
    assert ended.timed_out
    assert ended.exit == 4


def test_a_supervisor_that_is_killed_takes_the_script_with_it(script):
    name = script("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    code = f"from gradwise.trials.process import *; watch(Target({name!r}), {{}}, print)"
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    supervisor.kill()
    supervisor.wait()
    assert ends(pid)


def ends(pid: int) -> bool:
    """Whether a process is gone soon, even on a machine that has much else to do."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_trial_has_no_input_and_is_heard_by_us_only(script, capfd):
    name = script("import sys; print('out', repr(sys.stdin.read())); print('err', file=sys.stderr)")
    ended = trial(name)
    assert (ended.stdout, ended.stderr, ended.exit) == ("out ''\n", "err\n", 0)
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_takes_too_long_is_ended_with_all_it_started(script, jump):
    name = script(
        """
        import subprocess, time
        child = subprocess.Popen(["sleep", "60"])
        print(child.pid, flush=True)
        open("there", "w")
        time.sleep(60)
        """
    )
    ended = trial(name, timeout=100.0)
    assert (ended.timed_out, ended.exit) == (True, -signal.SIGKILL)
    assert ends(int(ended.stdout))


def test_what_a_trial_leaves_running_ends_with_it(script):
    ended = trial(script("import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"))
    assert ends(int(ended.stdout))


def test_ctrl_c_ends_a_trial(script):
    name = script(
        f"""
        import os, time
        open("pid", "w").write(str(os.getpid()))
        os.kill({os.getpid()}, {int(signal.SIGINT)})
        time.sleep(60)
        """
    )
    with pytest.raises(Interrupted, match="SIGINT"):
        trial(name)
    assert ends(int(Path("pid").read_text()))


def test_signals_reach_us_again_afterwards(script):
    trial(script("pass"))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint({signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})


def test_without_room_for_files_nothing_is_started(script, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(process.tempfile, "mkdtemp", full)
    with pytest.raises(NotStarted, match="No space left"):
        watch(script("open('ran', 'w')"))
    assert not Path("ran").exists()


def test_no_trace_is_left_in_the_folder_for_temporary_files(script, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path / "t"))
    watch(script("pass"))
    trial(script("pass"))
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize(("name", "words"), [("none.py", "there is no script 'none.py'"), (".", "without a __main__")])
def test_what_cannot_run_is_said(tmp_path, name, words):
    problem = Target(name, cwd=str(tmp_path)).problem()
    assert problem is not None
    assert words in problem


def test_modules_and_folders_with_a_main_can_run(tmp_path):
    (tmp_path / "__main__.py").touch()
    assert Target(".", cwd=str(tmp_path)).problem() is None
    assert Target("anything", module=True).problem() is None


def test_what_a_killed_run_left_is_swept_away_by_the_next(script, tmp_path, monkeypatch):
    from gradwise.trials.files import RUN, hold, sweep

    left, held = tmp_path / f"{RUN}left", tmp_path / f"{RUN}held"
    for folder in (left, held):
        folder.mkdir()
        os.close(hold(str(folder)))
    lock = hold(str(held))
    sweep(str(tmp_path), (RUN,))
    assert (left.exists(), held.exists()) == (False, True)
    os.close(lock)
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))
    watch(script("pass"))
    assert [p.name for p in tmp_path.glob(f"{RUN}*")] == [held.name]
