from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gradwise.trials import effects
from gradwise.trials.programs import describe, program_effects
from gradwise.trials.surroundings import library_of_file, shared_places, temporary_folders

LOOKING = [
    ["git", "rev-parse", "--short", "HEAD"],
    ["/usr/bin/git", "-C", "/x", "status", "--porcelain"],
    ["git", "--no-pager", "diff", "HEAD"],
    ["git", "config", "--get", "remote.origin.url"],
    ["git", "branch", "--show-current"],
    ["nvidia-smi", "--query-gpu=name", "--format=csv"],
    ["gcc-12", "-O2", "x.c"],
    ["x86_64-linux-gnu-gcc", "-v"],
    ["sh", "-c", "uname -a 2>/dev/null | head -1"],
    ["/bin/sh", "-c", "git log -1 --format=%H 2>&1"],
    ["sh", "-c", "which nvcc || true"],
]
ACTING = [
    [],
    ["git", "push"],
    ["git", "commit", "-am", "x"],
    ["git", "branch", "new"],
    ["git", "config", "user.name", "me"],
    ["git", "diff", "--output=x"],
    ["git", "remote", "add", "a", "b"],
    ["rsync", "-a", "out", "host:"],
    ["python", "other.py"],
    ["sudo", "true"],
    ["sh", "-c", "echo hi > file"],
    ["sh", "-c", "date; curl http://x"],
    ["sh", "-c", "cat $(find / -name x)"],
    ["sh", "-c", "sleep 100 &"],
    ["sh", "-c", "rm *.pt"],
    ["sh", "-c", "unbalanced 'quote"],
    ["sh", "-c", "bash script.sh"],
    ["bash", "script.sh"],
    ["env", "rm", "x"],
]


@pytest.mark.parametrize("argv", LOOKING, ids=" ".join)
def test_programs_that_only_look_are_harmless(argv: list[str]) -> None:
    assert program_effects(argv) == []


@pytest.mark.parametrize("argv", ACTING, ids=" ".join)
def test_programs_that_may_do_anything_are_not(argv: list[str]) -> None:
    assert program_effects(argv) is None


def test_programs_on_files_are_read_as_what_they_do() -> None:
    found = program_effects(["sh", "-c", "mkdir -p out/a && touch out/b; rm -rf -- -x"])
    assert found is not None
    assert [(e.verb, e.path) for e in found] == [("make", "out/a"), ("write", "out/b"), ("move", "-x")]


def test_commands_are_shown_short() -> None:
    assert describe(["sh", "-c", "git  push\norigin"]) == "git push origin"
    assert len(describe(["x" * 500])) <= 80


@pytest.mark.parametrize(
    ("event", "args", "expected"),
    [
        ("open", ("a", "r", os.O_RDONLY | os.O_CLOEXEC), [("read", "a")]),
        ("open", ("a", "w", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), [("replace", "a")]),
        ("open", ("a", "a", os.O_WRONLY | os.O_CREAT | os.O_APPEND), [("write", "a")]),
        ("open", (b"a", None, os.O_RDWR), [("write", b"a")]),
        ("open", (7, "w", os.O_WRONLY), []),
        ("os.rename", ("a", "b", -1, 5), [("move", "a"), ("make", "b")]),
        ("os.link", ("a", "b", -1, -1), [("write", "a"), ("make", "b")]),
        ("os.symlink", ("a", "b", -1), [("make", "b")]),
        ("os.chmod", ("a", 0o600, -1), [("touch", "a")]),
        ("os.setxattr", ("a", "user.x", b"", 0), [("touch", "a")]),
        ("shutil.rmtree", ("a", None), [("tree", "a")]),
        ("sqlite3.connect", (":memory:",), []),
        ("sqlite3.connect", ("file:x?mode=ro",), []),
        (
            "sqlite3.connect",
            ("file:///x/y?cache=shared",),
            [("write", "/x/y" + e) for e in ("", "-wal", "-shm", "-journal")],
        ),
    ],
)
def test_file_events(event: str, args: tuple[Any, ...], expected: list[tuple[str, Any]]) -> None:
    assert [(e.verb, e.path) for e in effects.file_effects(event, args)] == expected


def test_events_as_python_raises_them_are_understood(tmp_path: Path) -> None:
    """Each event of the table has the arguments this Python gives it."""
    import sys

    seen: dict[str, Any] = {}
    on = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if on and event in effects.FILES:
            seen[event] = effects.file_effects(event, args)

    sys.addaudithook(hook)
    here = os.open(tmp_path, os.O_RDONLY)
    a, b, c = (str(tmp_path / name) for name in "abc")
    Path(a).write_text("x")
    os.link(a, b)
    os.symlink(a, c)
    os.truncate(a, 0)
    os.chmod(a, 0o600)
    os.chown(a, -1, -1)
    os.utime("a", dir_fd=here)
    os.rename("b", "d", src_dir_fd=here, dst_dir_fd=here)
    os.remove("d", dir_fd=here)
    os.mkdir("e", dir_fd=here)
    os.rmdir("e", dir_fd=here)
    on = False
    os.close(here)
    assert seen["os.rename"][1] == effects.FileEffect("make", "d", here)
    assert seen["os.remove"] == (effects.FileEffect("remove", "d", here),)
    assert seen["os.utime"] == (effects.FileEffect("touch", "a", here),)
    assert set(seen) >= {"open", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.mkdir", "os.rmdir"}


def test_paths_are_made_absolute_however_they_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("")
    folder = os.open(tmp_path, os.O_RDONLY)
    file = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        for path, fd in (("f", None), (b"f", -1), (Path("f"), None), ("f", folder), (file, None)):
            assert effects.absolute(path, fd) == str(tmp_path / "f")
    finally:
        os.close(folder), os.close(file)
    with pytest.raises(TypeError):
        effects.absolute(3.5)


def test_names_and_what_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    link = str(tmp_path / "link")
    assert effects.resolved(link, effects.REMOVE) == link
    assert effects.resolved(link + "/", effects.REMOVE) == link
    assert effects.resolved(link, effects.WRITE) == str(tmp_path / "folder")
    assert effects.resolved(link + "/x", effects.MAKE) == str(tmp_path / "folder" / "x")


def sock(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> Any:
    return SimpleNamespace(family=family, type=kind)


@pytest.mark.parametrize(
    ("event", "args", "expected"),
    [
        ("socket.connect", (sock(), ("10.0.0.3", 5432)), "10.0.0.3:5432"),
        ("socket.connect", (sock(socket.AF_INET6), ("fe80::1", 80, 0, 0)), "fe80::1:80"),
        ("socket.connect", (sock(), ("127.0.0.1", 60999)), None),
        ("socket.connect", (sock(), ("localhost", 5000)), "the local service at localhost:5000"),
        ("socket.connect", (sock(kind=socket.SOCK_DGRAM), ("8.8.8.8", 80)), None),
        ("socket.sendto", (sock(kind=socket.SOCK_DGRAM), ("8.8.8.8", 53)), "8.8.8.8:53"),
        ("socket.sendmsg", (sock(), None), None),
        ("socket.connect", (sock(socket.AF_UNIX), "/tmp/pymp-x/listener"), None),
        ("socket.connect", (sock(socket.AF_UNIX), b"\0abstract"), None),
        ("socket.connect", (sock(socket.AF_UNIX), "/run/docker.sock"), "the local service at /run/docker.sock"),
    ],
)
def test_connections(event: str, args: tuple[Any, ...], expected: str | None) -> None:
    assert effects.foreign_address(event, args) == expected


def test_caches_are_shared_places_but_never_the_script_s_own_folder(tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "work")}
    places = shared_places(env, [str(tmp_path / "work")])
    assert f"{tmp_path}/hf/" in places
    assert f"{tmp_path}/" not in places
    assert f"{tmp_path}/work/" not in places
    assert os.path.join(os.path.expanduser("~"), "") not in places
    assert "/dev/" in places


def test_temporary_folders_follow_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_folders()[0] == f"{tmp_path}/"


@pytest.mark.parametrize(
    ("file", "library"),
    [
        (os.__file__, "python"),
        (effects.__file__, "gradwise"),
        ("/v/lib/python3.11/site-packages/torch/nn/init.py", "torch"),
        ("/v/site-packages/six.py", "six"),
        ("/home/ann/train.py", ""),
        ("<stdin>", ""),
    ],
)
def test_whose_code_a_file_is(file: str, library: str) -> None:
    assert library_of_file(file) == library
