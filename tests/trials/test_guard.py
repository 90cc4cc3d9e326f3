from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from isolation_helpers import Doctor, run, tree, write

from gradwise.trials import sandbox
from gradwise.trials.confine import confine_writes
from gradwise.trials.guard import Guard


@pytest.mark.parametrize(
    ("deed", "reason", "violation"),
    [
        ("open(outside, 'w').write('x')", "writes outside its folder", "writes {outside} by its full path"),
        ("os.makedirs(outside)", "writes outside its folder", "writes {outside} by its full path"),
        ("open(existing, 'a').write('x')", "writes outside its folder", "writes {existing} by its full path"),
        ("os.remove(existing)", "writes outside its folder", "removes {existing} by its full path"),
        ("os.chmod(existing, 0o600)", "writes outside its folder", "changes {existing} by its full path"),
        ("os.rename('old', outside)", "writes outside its folder", "writes {outside} by its full path"),
        ("os.system('sort --version > /dev/null')", "starts another program: sort", "starts another program: sort"),
        ("import subprocess; subprocess.run([sys.executable, '-c', ''])", "another program", "another program"),
        ("__import__('socket').socket().connect_ex(('127.0.0.1', 9))", "service at 127.0.0.1:9", "connects to the"),
        ("\\ntry: input()\\nexcept EOFError: pass", "asks its user", "asks its user"),
    ],
)  # fmt: skip
def test_what_reaches_outside_is_foretold_and_stopped(doctor: Doctor, deed: str, reason: str, violation: str) -> None:
    write(doctor.work / "old", "old")
    places = {"outside": str(doctor.home / "far" / "x"), "existing": str(doctor.home / "far" / "old")}
    write(Path(places["existing"]), "old")
    # The test's folder is in /tmp, where writing is taken for temporary until a trial shows that it isn't.
    doctor.env["TMPDIR"] = "/dev/shm"
    text = f"import os, sys\noutside, existing = {places['outside']!r}, {places['existing']!r}\n" + deed.replace(
        "\\n", "\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "temporary_folders", lambda: ("/nowhere/",))
        doctor.watch(text)
        assert not doctor.isolation().possible
        assert reason in str(doctor.isolation())
    ran, found = doctor.trial()
    assert found is not None
    assert violation.format(**places) in found
    assert ran.exit != 0
    assert "PermissionError" in ran.stderr
    assert "trial run of gradwise" in ran.stderr


def test_reading_what_the_watched_run_left_by_its_full_path_is_stopped(doctor: Doctor) -> None:
    last = doctor.work / "ckpt" / "last"
    doctor.watch(
        f"""
        import os
        print(open({str(last)!r}).read() if os.path.exists({str(last)!r}) else 0)
        os.makedirs("ckpt", exist_ok=True)
        open("ckpt/last", "w").write("9")
        """
    )
    _, violation = doctor.trial()
    assert violation == f"reads {last} by its full path, which the watched run had changed"


def test_a_violation_that_the_script_swallows_or_a_worker_makes_is_still_known(doctor: Doctor) -> None:
    doctor.watch(
        """
        import os
        if os.fork() == 0:
            try:
                open("/var/gw-test-outside", "x")
            except OSError:
                pass
            os._exit(0)
        os.wait()
        """
    )
    Path("/var/gw-test-outside").unlink()
    ran, violation = doctor.trial()
    assert ran.exit == 0
    assert violation is not None
    assert "/var/gw-test-outside" in violation


def test_the_kernel_stops_what_python_does_not_see(doctor: Doctor) -> None:
    write(doctor.work / "old.bin", "old" * (1 << 20))
    doctor.env["VICTIM"] = str(doctor.work / "old.bin")
    doctor.watch(
        """
        import ctypes, multiprocessing, os
        libc = ctypes.CDLL(None)
        def spawned():
            print(libc.truncate(os.environ["VICTIM"].encode(), 1))
        if __name__ == "__main__":
            print(libc.unlink(os.environ["VICTIM"].encode() + b".none"), libc.mkdir(b"by c", 0o700))
        """
    )
    write(
        doctor.work / "train.py",
        """
        import ctypes, multiprocessing, os
        libc = ctypes.CDLL(None)
        victim = os.environ["VICTIM"].encode()
        def spawned():
            print("spawned", libc.truncate(victim, 1), flush=True)
        if __name__ == "__main__":
            print(libc.truncate(victim, 1), libc.truncate(b"old.bin", 1), libc.unlink(victim), libc.mkdir(b"c", 0o700))
            process = multiprocessing.get_context("spawn").Process(target=spawned)
            process.start(), process.join()
        """,
    )
    assert doctor.workspace is not None
    before = tree(doctor.work)
    with doctor.workspace.scratch() as scratch:
        # This view takes its code from before; the script of the trial is the new one.
        write(Path(scratch.cwd, "train.py"), (doctor.work / "train.py").read_text())
        env = {**scratch.environment, "VICTIM": doctor.env["VICTIM"]}  # else moved into the scratch
        ran = run(scratch.script or "", scratch.cwd, doctor.aside, env=env, guard=scratch.guard())
        if not ran.said("confined")[0]["confined"]:
            pytest.skip("this kernel has no Landlock")
    assert ran.ok().stdout.split("\n")[:2] == ["-1 -1 -1 0", "spawned -1"]
    assert tree(doctor.work) == before


def test_windows_and_questions_find_nobody(doctor: Doctor) -> None:
    library = doctor.work / "lib" / "site-packages" / "matplotlib"
    write(
        library / "__init__.py",
        "import os\nbackend = os.environ.get('MPLBACKEND')\ndef use(b): raise ImportError('no display')",
    )
    doctor.env["DISPLAY"] = ":0"
    write(doctor.work / "train.py", "")
    doctor.watch("")
    text = """
        import os, sys
        sys.path.insert(0, "lib/site-packages")
        import matplotlib
        matplotlib.use("TkAgg")
        print(matplotlib.backend, os.environ.get("DISPLAY"), os.environ["WANDB_MODE"], sys.stdin.read() == "")
    """
    assert doctor.workspace is not None
    with doctor.workspace.scratch() as scratch:
        write(Path(scratch.cwd, "train.py"), text)
        ran = run("train.py", scratch.cwd, doctor.aside, env=scratch.environment, guard=scratch.guard()).ok()
    assert ran.stdout == "Agg None disabled True\n"


def made_guard(tmp_path: Path, **changes: Any) -> tuple[Guard, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    (tmp_path / "top").mkdir(exist_ok=True)
    top = str(tmp_path / "top")
    config = {
        "top": top,
        "base": top + "/root",
        "making": top + "/making",
        "log": top + "/log",
        "allowed": ["/dev/"],
        "changed": [],
        **changes,
    }
    return Guard(config, lambda kind, data: said.append({"kind": kind, **data})), said


def test_errors_of_ours_stop_the_trial_rather_than_let_it_write(tmp_path: Path) -> None:
    guard, said = made_guard(tmp_path)
    for event, args in (("os.rename", ()), ("subprocess.Popen", (None, None)), ("open", ("x", "w", None))):
        with pytest.raises(PermissionError, match="can't be isolated"):
            guard.hook(event, args)
    assert len(said) == 1  # the first
    assert len((tmp_path / "top" / "log").read_text().splitlines()) == 1


def test_a_report_that_fails_changes_nothing(tmp_path: Path) -> None:
    guard, _ = made_guard(tmp_path)

    def broken(kind: str, data: dict[str, Any]) -> None:
        raise RuntimeError("broken")

    guard.report = broken
    with pytest.raises(PermissionError, match="writes /var/x by its full path"):
        guard.hook("open", ("/var/x", "w", os.O_WRONLY | os.O_CREAT))


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("open", ("/dev/null", "w", os.O_WRONLY)),
        ("open", ("/etc/hostname", "r", os.O_RDONLY)),
        ("open", ("/tmp", "w+", os.O_RDWR)),
        ("os.remove", ("/var/not there", -1)),
        ("os.mkdir", ("/var", 0o777, -1)),
        ("os.chdir", ("/",)),
        ("os.fork", ()),
        ("import", ("x",)),
    ],
)
def test_what_changes_nothing_outside_passes(tmp_path: Path, event: str, args: tuple[Any, ...]) -> None:
    guard, said = made_guard(tmp_path)
    guard.hook(event, args)
    assert not said


def test_whatever_the_watched_run_changed_is_out_of_bounds(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    guard, _ = made_guard(tmp_path, changed=[str(tmp_path / "made"), str(tmp_path / "gone")])
    for event, args in (
        ("open", (str(tmp_path / "made" / "x"), "r", os.O_RDONLY)),
        ("os.mkdir", (str(tmp_path / "made"), 0o777, -1)),
        ("os.remove", (str(tmp_path / "gone"), -1)),
    ):
        with pytest.raises(PermissionError):
            guard.hook(event, args)


def test_kernel_compilers_may_start_what_they_like(doctor: Doctor) -> None:
    library = doctor.work / "lib" / "site-packages" / "torch" / "_inductor"
    write(library.parent / "__init__.py", "")
    write(library / "__init__.py", "import subprocess\ndef build(): subprocess.run(['sort', '--version'])")
    doctor.same(
        """
        import sys; sys.path.insert(0, "lib/site-packages"); sys.dont_write_bytecode = True
        from torch._inductor import build
        build()
        """
    )


def test_confinement_binds_children_and_spares_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "free").mkdir()
    if os.fork() == 0:  # it can't be taken back
        try:
            if not confine_writes([str(tmp_path / "free"), str(tmp_path / "not there"), "/dev"]):
                os._exit(77)
            (tmp_path / "free" / "x").write_text("x")
            os.rename(tmp_path / "free" / "x", tmp_path / "free" / "y")
            Path("/dev/null").write_text("x")
            stopped = os.system(f"touch {tmp_path}/forbidden 2>/dev/null")
            os._exit(0 if stopped and not (tmp_path / "forbidden").exists() else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    if status == 77:
        pytest.skip("this kernel has no Landlock")
    assert status == 0
