from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from isolation_helpers import Doctor, run, tree, write

from gradwise.trials import scratch as scratches
from gradwise.trials import snapshot
from gradwise.trials.sandbox import Isolation, Workspace

STATE = """
import os, sys, json
from pathlib import Path
def state():
    return {str(p): p.read_text() if p.is_file() else None for p in sorted(Path(".").rglob("*")) if "py" not in str(p)}
print(json.dumps(state()))
"""


# What scripts do to the files in their folder; each in a folder of its own, all in one script.
DEEDS = [
    # resumes from its checkpoint
    "p = Path('last.ckpt'); n = int(p.read_text()) if p.exists() else 0; print(n); p.write_text(str(n + 9))",
    "p = Path('old.txt'); print(p.read_text()); p.write_text('overwritten')",
    "f = open('old.txt', 'a'); print(f.tell()); f.write('more')",
    "f = open('old.txt', 'r+'); print(f.read()); f.seek(0); f.write('changed')",
    "os.remove('old.txt'); os.rmdir('empty')",
    "os.rename('old.txt', 'new.txt'); open('new.txt', 'a').write('x')",
    "os.rename('runs', 'runs.bak'); os.makedirs('runs'); open('runs.bak/1/log', 'a').write('x')",
    "import shutil; shutil.rmtree('runs'); os.makedirs('runs/2'); open('runs/2/log', 'w').write('x')",
    "open('tmp', 'w').write('x'); os.replace('tmp', 'old.txt')",
    "os.symlink('old.txt', 'link'); open('link', 'w').write('x')",
    "os.link('old.txt', 'twin'); open('twin', 'w').write('x')",
    "os.chmod('old.txt', 0o600); os.utime('old.txt'); print(oct(os.stat('old.txt').st_mode))",
    "os.truncate('old.txt', 1)",
    "os.makedirs('a/b/c', exist_ok=True); open('a/b/c/d', 'w').write('x'); print(len(list(Path('a').rglob('*'))))",
    "os.chdir('runs'); open('here', 'w').write('x'); os.chdir('..')",
    "import tempfile; d = tempfile.mkdtemp(); open(d + '/x', 'w').write('x')",
    "import tempfile; p = Path(tempfile.gettempdir(), 'gw-test-fixed'); print(p.exists()); p.write_text('x')",
    "import sqlite3; c = sqlite3.connect('log.db'); c.execute('create table t (a)');"
    "c.execute('insert into t values (1)'); c.commit(); print(len(c.execute('select * from t').fetchall()))",
    "os.system('mkdir -p made/by/shell; touch old.txt; rm -rf runs'); import subprocess; subprocess.run(['uname'])",
    "open('big', 'r+b').write(b'new'); print(open('big', 'rb').read(5))",
    "open('runs/1/log', 'w').write('x'); print(open('runs/1/log').read())",
    "open('linked/x', 'w').write('x'); print(sorted(os.listdir('linked')))",
]
EACH = """
home = os.getcwd()
for k, deed in enumerate(deeds):
    os.chdir(os.path.join(home, str(k)))
    print(k, json.dumps(state()))
    exec(deed, dict(os=os, Path=Path))
    os.chdir(home)
"""


def furnish(folder: Path, elsewhere: Path, big: bool) -> None:
    write(folder / "old.txt", "old")
    write(folder / "runs" / "1" / "log", "1")
    (folder / "empty").mkdir()
    if big:
        (folder / "big").write_bytes(b"0" * (2 << 20))
    write(elsewhere / "y", "y")
    (folder / "linked").symlink_to(elsewhere)


def test_trials_start_where_the_watched_run_started(doctor: Doctor) -> None:
    for k, deed in enumerate(DEEDS):
        furnish(doctor.work / str(k), doctor.home / "elsewhere" / str(k), "big" in deed)
    try:
        doctor.same(STATE.replace("if p.is_file()", 'if p.is_file() and p.name != "big"') + f"deeds = {DEEDS!r}" + EACH)
    finally:
        Path("/tmp/gw-test-fixed").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "deed",
    [
        "(Path(__file__).resolve().parent / 'beside').write_text('x')",
        "(Path(__file__).resolve().parents[1] / 'above').write_text('x')",
        "Path('../neighbour').mkdir(exist_ok=True); Path('../neighbour/x').write_text('x')",
        "import helper; helper.save()",
    ],
)
def test_a_trial_starts_where_the_watched_run_started(doctor: Doctor, deed: str) -> None:
    furnish(doctor.work, doctor.home / "elsewhere", big=False)
    write(
        doctor.work / "helper.py",
        "from pathlib import Path\ndef save(): Path(__file__).with_name('saved').write_text('x')",
    )
    doctor.same(STATE + deed)


@pytest.mark.parametrize("confine", [True, False], ids=["with Landlock", "without"])
@pytest.mark.parametrize(
    "deed",
    [
        "open('big', 'r+b').write(b'new')",
        "open('big', 'a').write('new')",
        "open('big', 'w').write('new')",
        "os.truncate('big', 3)",
        "os.chmod('big', 0o600)",
        "os.utime('big')",
        "os.link('big', 'twin'); open('twin', 'r+b').write(b'new')",
        "os.rename('big', 'moved'); open('moved', 'r+b').write(b'new')",
        "os.remove('big'), os.remove('data/1')",
        "open('data/1', 'w').write('new')",
        "open('data/new', 'w').write('new')",
        "os.makedirs('data/a/b')",
        "import shutil; shutil.rmtree('data')",
        "import shutil; shutil.copy('train.py', 'data/1')",
        "os.rename('data', 'moved'); open('moved/1', 'w').write('new')",
        "os.chdir('data'); open('1', 'w').write('new')",
        "os.system('rm -rf data big; mkdir data; touch data/1')",
        "open('linked/1', 'w').write('new')",
        "fd = os.open('data', os.O_RDONLY); os.remove('data/1')",
    ],
)
def test_what_only_a_trial_writes_stays_in_it(
    doctor: Doctor, deed: str, confine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratches, "_MOST_REAL_ENTRIES", 1)  # `data` is a link, as a big folder is
    monkeypatch.setattr(scratches, "SMALL", 1000)
    (doctor.work / "big").write_bytes(b"0" * 5000)
    for n in range(5):
        write(doctor.work / "data" / str(n), "x" * 2000)
    (doctor.work / "linked").symlink_to("data")
    # The luck of a trial, say, leads it to something else.
    doctor.watch(f"import os\nif os.environ.get('MPLBACKEND') == 'Agg': {deed}")
    ran, violation = doctor.trial(confine)
    assert violation is None
    ran.ok()


def test_paths_among_the_arguments_and_in_the_environment_are_moved(doctor: Doctor) -> None:
    doctor.env["RESULTS"] = str(doctor.home / "results")
    doctor.same(
        """
        import os, sys
        from pathlib import Path
        for folder in (sys.argv[1], sys.argv[2].split("=")[1], os.environ["RESULTS"], sys.argv[4]):
            print(os.path.exists(folder))
            os.makedirs(folder, exist_ok=True)
            Path(folder, "x").write_text("x")
        print(sys.argv[3], os.path.exists(sys.argv[5]), os.path.basename(os.environ["PWD"]) != "")
        """,
        [str(doctor.home / "out"), f"--out={doctor.work}/out", "3e-4", "../relative", "/usr/bin"],
    )
    assert doctor.workspace is not None
    with doctor.workspace.scratch() as scratch:
        assert scratch.argv[2:] == ("3e-4", "../relative", "/usr/bin")
        assert scratch.map("relative") == "relative"


def test_a_script_elsewhere_and_through_a_link(doctor: Doctor) -> None:
    doctor.cwd = doctor.home / "there"
    doctor.cwd.mkdir()
    doctor.script = "../project/src/train.py"
    write(doctor.work / "src" / "neighbour.py", "value = 7")
    text = """
        import sys, os
        from pathlib import Path
        from neighbour import value
        out = Path(__file__).resolve().parent / "out"
        print(value, out.exists(), os.listdir("."), os.path.basename(sys.path[0]))
        out.mkdir()
        Path("here").write_text("x")
    """
    doctor.same(text)
    for made in ("out", "here"):
        path = doctor.work / "src" / made if made == "out" else doctor.cwd / made
        path.rmdir() if path.is_dir() else path.unlink()
    (doctor.cwd / "link.py").symlink_to("../project/src/train.py")
    assert doctor.workspace is not None
    doctor.workspace.close()
    doctor.script = "link.py"
    watched = run("link.py", doctor.cwd, doctor.aside, env=doctor.env).ok()
    for made in ("out", "here"):
        path = doctor.work / "src" / made if made == "out" else doctor.cwd / made
        path.rmdir() if path.is_dir() else path.unlink()
    doctor.workspace = Workspace.before(str(doctor.cwd), doctor.script, (), doctor.env)
    doctor.workspace.after()
    assert doctor.trial()[0].ok().stdout == watched.stdout


def test_modules_run_from_the_copy(doctor: Doctor) -> None:
    write(doctor.work / "package" / "__init__.py", "")
    write(
        doctor.work / "package" / "train.py", "from pathlib import Path; Path(__file__).with_name('x').write_text('x')"
    )
    with Workspace.before(str(doctor.work), None) as workspace:
        workspace.after()
        before = tree(doctor.work)
        with workspace.scratch() as scratch:
            assert scratch.script is None
            run(
                "package.train",
                scratch.cwd,
                doctor.aside,
                python=["-m"],
                env=scratch.environment,
                guard=scratch.guard(),
            ).ok()
        assert tree(doctor.work) == before


def test_checkpoints_of_torch_are_not_resumed_from(doctor: Doctor) -> None:
    (doctor.work / "best.pt").write_bytes(b"from an earlier run")
    doctor.same(
        """
        import os, torch
        print(os.path.exists("last.pt"), open("best.pt", "rb").read(4))
        torch.save({"a": torch.ones(3)}, "last.pt")
        torch.save({"a": torch.ones(3)}, "best.pt")
        torch.save({"a": torch.ones(3)}, "new folder ö.pt")
        print(torch.load("last.pt")["a"].sum())
        """
    )


def test_workers_write_into_the_copy_too(doctor: Doctor) -> None:
    write(doctor.work / "shared" / "log", "old")
    (doctor.work / "shared" / "big").write_bytes(b"0" * (2 << 20))
    doctor.same(
        """
        import multiprocessing, os
        def work(n):
            with open("shared/log", "a") as file:
                file.write(str(n))
            with open(f"shared/of {n}", "w") as file:
                file.write("x")
            with open("shared/big", "r+b") as file:
                file.write(b"x")
        if __name__ == "__main__":
            print(sorted(os.listdir("shared")))
            work(0)
            with multiprocessing.get_context("fork").Pool(4) as pool:
                pool.map(work, range(20))
            print(len(os.listdir("shared")))
        """
    )


def test_downloads_stay_for_the_trials(doctor: Doctor) -> None:
    library = doctor.work / "lib" / "site-packages" / "torchvision" / "datasets"
    write(library.parent / "__init__.py", "")
    write(
        library / "__init__.py",
        """
        import os, socket
        def mnist():
            if not os.path.exists("data/raw"):
                socket.socket().connect_ex(("127.0.0.1", 9))
                os.makedirs("data")
                open("data/raw", "w").write("pixels")
            return open("data/raw").read()
        """,
    )
    doctor.same(
        """
        import sys; sys.path.insert(0, "lib/site-packages"); sys.dont_write_bytecode = True
        from torchvision.datasets import mnist
        print(mnist())
        """
    )


def test_code_edited_during_the_run_is_run_as_it_was(doctor: Doctor) -> None:
    write(doctor.work / "config.yaml", "lr: 1")
    watched = doctor.watch("print(1, open('config.yaml').read())")
    write(doctor.work / "train.py", "raise SystemExit('half an edit')")
    write(doctor.work / "config.yaml", "lr: 2")
    assert doctor.trial()[0].ok().stdout == watched.stdout


def test_a_log_that_another_program_writes_is_no_reason(doctor: Doctor) -> None:
    log = open(doctor.work / "out.log", "a")  # noqa: SIM115
    logger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=log)
    try:
        write(doctor.work / "train.py", "")
        doctor.workspace = Workspace.before(str(doctor.work), "train.py")
        log.write("a line"), log.flush()
        write(doctor.work / "data.bin", "x")
        doctor.workspace.after()
        assert doctor.isolation() == Isolation(True)
    finally:
        logger.kill(), logger.wait(), log.close()


def test_changes_that_nobody_saw_are_a_reason(doctor: Doctor) -> None:
    for name in ("weights.bin", "gone.bin"):
        write(doctor.work / name, "before")
    doctor.workspace = Workspace.before(str(doctor.work))
    write(doctor.work / "weights.bin", "changed from C")
    (doctor.work / "gone.bin").unlink()
    write(doctor.work / "new.bin", "x")
    doctor.workspace.after()
    reason = str(doctor.isolation())
    assert "former content" in reason
    assert str(doctor.work / "weights.bin") in reason
    assert str(doctor.work / "gone.bin") in reason
    assert "new.bin" not in reason


def test_content_that_was_too_much_to_keep_is_a_reason(doctor: Doctor) -> None:
    write(doctor.work / "train.py", "open('f', 'w').write('new')")
    (doctor.work / "f").write_text("old " * 100)
    doctor.workspace = Workspace.before(str(doctor.work), "train.py")
    orders = {**doctor.workspace.audit(), "limit": 10}
    for note in run("train.py", doctor.work, doctor.aside, env=doctor.env, audit=orders).ok().said("effect"):
        doctor.workspace.note(note)
    doctor.workspace.after()
    assert not doctor.isolation().possible


def test_big_folders_are_links_but_code_is_real(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratches, "_MOST_REAL_ENTRIES", 20)
    monkeypatch.setattr(scratches, "SMALL", 10)
    for n in range(30):
        write(doctor.work / "src" / "data" / "images" / f"{n}.png", "a picture, not small")
    write(doctor.work / "src" / "package" / "module.py", "x")
    write(doctor.work / ".git" / "HEAD", "ref")
    write(doctor.work / "venv" / "pyvenv.cfg", "home = x")
    write(doctor.work / ".gradwise" / "runs.db", "x")
    doctor.workspace = Workspace.before(str(doctor.work))
    doctor.workspace.after()
    with doctor.workspace.scratch() as scratch:
        there = Path(scratch.cwd)
        assert not (there / "src" / "package" / "module.py").is_symlink()
        assert (there / "src" / "data").is_symlink()
        assert len(list((there / "src" / "data").rglob("*.png"))) == 30
        assert (there / ".git").is_symlink()
        assert (there / "venv").is_symlink()
        assert not (there / ".gradwise").exists()


def test_scratches_go_whatever_happens(doctor: Doctor) -> None:
    doctor.watch("")
    assert doctor.workspace is not None
    with contextlib.suppress(KeyboardInterrupt), doctor.workspace.scratch() as scratch:
        locked = Path(scratch.temporary) / "locked"
        locked.mkdir()
        (locked / "x").write_text("x")
        (locked / "link").symlink_to(doctor.work)
        locked.chmod(0o000)
        raise KeyboardInterrupt
    assert not os.path.exists(scratch.top)
    assert (doctor.work / "train.py").exists()


def test_the_scratch_of_a_killed_supervisor_is_swept_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    code = textwrap.dedent(
        f"""
        import sys, time
        from gradwise.trials.sandbox import Workspace
        with Workspace.before({str(work)!r}) as workspace:
            workspace.after()
            with workspace.scratch() as scratch:
                print(scratch.top, workspace.folder, flush=True)
                if sys.argv[1] == "wait":
                    time.sleep(60)
        """
    )

    def start(what: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code, what], env=env, stdout=subprocess.PIPE, text=True)

    def folders(process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        return process.stdout.readline().split()

    killed, living = start("wait"), start("wait")
    left, used = folders(killed), folders(living)
    killed.send_signal(signal.SIGKILL), killed.wait()
    assert all(map(os.path.exists, left))
    assert start("end").wait() == 0
    assert not any(map(os.path.exists, left))
    assert all(map(os.path.exists, used))
    living.send_signal(signal.SIGINT)  # as Ctrl-C
    living.wait()
    assert not any(map(os.path.exists, used))


def test_reasons_are_short(doctor: Doctor) -> None:
    doctor.workspace = Workspace(str(doctor.work), None, (), {})
    for n in range(100):
        path = f"/srv/data/{n}"
        doctor.workspace.note(
            {"kind": "write", "path": path, "at": path, "relative": False, "existed": False, "kept": None, "by": ""}
        )
        doctor.workspace.note({"kind": "connect", "address": "h:1", "by": ""})
    assert doctor.isolation().reasons == (
        "it writes outside its folder: /srv/data/0, /srv/data/1, /srv/data/2, /srv/data/3, /srv/data/4 and 95 more",
        "it connects to h:1",
    )


def test_snapshots_are_bounded_and_compare_only_what_both_saw(tmp_path: Path) -> None:
    for n in range(10):
        write(tmp_path / f"d{n}" / "f", "x")
    before = snapshot.Snapshot.take([str(tmp_path)])
    assert before.complete
    assert before.covers(str(tmp_path / "d0" / "new"))
    assert not before.covers(str(tmp_path / "none" / "new"))
    write(tmp_path / "d1" / "f", "changed")
    (tmp_path / "d2" / "f").unlink(), (tmp_path / "d2").rmdir()
    write(tmp_path / "new" / "f", "x")
    found = snapshot.compare(before, snapshot.Snapshot.take([str(tmp_path)]))
    assert found.created == {str(tmp_path / "new")}
    assert found.changed == {str(tmp_path / "d1" / "f")}
    assert found.removed == {str(tmp_path / "d2"), str(tmp_path / "d2" / "f")}
    short = snapshot.Snapshot.take([str(tmp_path)], most=5)
    assert not short.complete
    assert snapshot.compare(before, short).removed == {str(tmp_path / "d2"), str(tmp_path / "d2" / "f")}
