from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from isolation_helpers import Ran, run, tree, write

from gradwise.trials.audit import Audit


class Bench:
    """A project folder, and a place beside it for what gradwise keeps."""

    def __init__(self, tmp_path: Path) -> None:
        self.work = tmp_path / "work"
        self.kept = tmp_path / "kept"
        self.aside = tmp_path / "aside"
        for folder in (self.work, self.kept, tmp_path / "home"):
            folder.mkdir()
        # Else all that these tests write would pass for temporary, which lies in /tmp.
        self.env = {**os.environ, "HOME": str(tmp_path / "home")}

    def run(self, text: str, **audit: Any) -> Ran:
        script = write(self.work / "script.py", text)
        return run(script, self.work, self.aside, env=self.env, audit={"folder": str(self.kept), **audit}).ok()

    def notes(self, text: str, **audit: Any) -> dict[str, dict[str, Any]]:
        """The notes on files by path, relative to the project (of each the first that isn't just a touch)."""
        found: dict[str, dict[str, Any]] = {}
        for note in self.run(text, **audit).said("effect"):
            if "path" in note:
                name = os.path.relpath(note["path"], self.work)
                if found.get(name, {"kind": "touch"})["kind"] == "touch":
                    found[name] = note
        return found

    def content(self, note: dict[str, Any]) -> str:
        assert note["kept"] is not None, note
        return (self.kept / note["kept"]).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def old(bench: Bench, **files: str) -> None:
    for name, text in files.items():
        write(bench.work / name.replace("__", "/"), text)


@pytest.mark.parametrize(
    "deed",
    [
        "open('f', 'w').write('new')",
        "open('f', 'a').write('new')",
        "open('f', 'r+b').write(b'new')",
        "open(b'f', 'w').write('new')",
        "__import__('pathlib').Path('f').write_text('new')",
        "os.write(os.open('f', os.O_WRONLY), b'new')",
        "os.truncate('f', 1)",
        "os.remove('f')",
        "os.rename('f', 'g')",
        "open('g', 'w').write('new'); os.replace('g', 'f')",
        "shutil.copy('script.py', 'f')",
        "shutil.move('f', 'g')",
        "os.remove('f', dir_fd=os.open('.', os.O_RDONLY))",
        "os.open('f', os.O_RDONLY); os.chmod('f', 0o600); shutil.copy('script.py', 'f')",
        "os.system('rm f')",
        "subprocess.run(['touch', 'f'])",
        "os.symlink('f', 'l'); open('l', 'w').write('new')",
        "os.makedirs('d'); os.chdir('d'); open('../f', 'w').write('new')",
        "with_threads()",
    ],
)
def test_old_content_is_kept_before_it_goes(bench: Bench, deed: str) -> None:
    old(bench, f="old content")
    note = bench.notes(
        f"""
        import os, shutil, subprocess, threading

        def with_threads():
            threads = [threading.Thread(target=lambda: open('f', 'w').write('new')) for _ in range(9)]
            [t.start() for t in threads], [t.join() for t in threads]

        {deed}
        """
    )["f"]
    assert note["existed"]
    assert bench.content(note) == "old content"


def test_only_the_first_content_is_kept(bench: Bench) -> None:
    old(bench, f="old")
    notes = bench.run("for i in range(50): open('f', 'w').write(str(i))\nimport os; os.remove('f')").said("effect")
    assert [(n["kind"], n["kept"]) for n in notes] == [("write", "000000"), ("remove", None)]
    assert (bench.kept / "000000").read_text() == "old"


def test_new_files_are_noted_and_nothing_of_them_is_kept(bench: Bench) -> None:
    notes = bench.notes(
        """
        import os
        os.makedirs('out/a', exist_ok=True)
        open('out/a/f', 'w').write('x')
        open('out/a/f', 'a').write('y')
        os.rename('out/a/f', 'out/g')
        os.remove('out/g')
        """
    )
    assert set(notes) == {"out", "out/a", "out/a/f", "out/g"}
    assert not any(n["existed"] or n["kept"] for n in notes.values())
    assert not list(bench.kept.iterdir())


def test_a_renamed_folder_is_kept_file_by_file(bench: Bench) -> None:
    old(bench, d__x="x", d__e__y="y")
    notes = bench.notes("import os; os.rename('d', 'moved'); open('moved/x', 'w').write('new')")
    assert bench.content(notes["d/x"]) == "x"
    assert bench.content(notes["d/e/y"]) == "y"


def test_a_removed_tree_is_kept(bench: Bench) -> None:
    old(bench, d__x="x", d__e__y="y")
    notes = bench.notes("import shutil; shutil.rmtree('d')")
    assert bench.content(notes["d/x"]) == "x"
    assert bench.content(notes["d/e/y"]) == "y"


def test_content_with_a_second_name_is_copied(bench: Bench) -> None:
    old(bench, f="old")
    os.link(bench.work / "f", bench.work / "twin")
    notes = bench.notes("import os; os.remove('f'); open('twin', 'r+').write('new')")
    assert bench.content(notes["f"]) == "old"
    assert bench.content(notes["twin"]) == "old"


def test_links_are_kept_as_links(bench: Bench) -> None:
    old(bench, f="x")
    (bench.work / "l").symlink_to("f")
    note = bench.notes("import os; os.remove('l')")["l"]
    assert os.readlink(bench.kept / note["kept"]) == "f"


def test_too_much_is_not_kept_and_said_so(bench: Bench) -> None:
    old(bench, f="x" * 100, g="y" * 10)
    notes = bench.notes("open('f', 'w'); open('g', 'w')", limit=50)
    assert notes["f"]["existed"]
    assert notes["f"]["kept"] is None
    assert bench.content(notes["g"]) == "y" * 10


def test_torch_save_is_seen_though_it_writes_from_c(bench: Bench) -> None:
    old(bench, **{"m.pt": "old"})
    notes = bench.notes(
        """
        import io, torch
        from pathlib import Path
        torch.save({"a": torch.ones(3)}, "m.pt")
        torch.save({"a": torch.ones(3)}, Path("n.pt"))
        torch.save({"a": torch.ones(3)}, "ö.pt")
        torch.save({"a": torch.ones(3)}, io.BytesIO())
        torch.save({"a": torch.ones(3)}, "o.pt", _use_new_zipfile_serialization=False)
        with open("p.pt", "wb") as file:
            torch.save({"a": torch.ones(3)}, file)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), "q.pt")
        for name in ("m.pt", "n.pt", "ö.pt", "o.pt", "p.pt"):
            assert torch.load(name)["a"].sum() == 3
        """
    )
    assert bench.content(notes["m.pt"]) == "old"
    assert set(notes) == {"m.pt", "n.pt", "ö.pt", "o.pt", "p.pt", "q.pt"}


def test_databases_are_kept_with_their_journals(bench: Bench) -> None:
    old(bench, **{"q.db": "", "q.db-wal": "w"})
    notes = bench.notes("import sqlite3; sqlite3.connect('file:q.db?x=1', uri=True); sqlite3.connect(':memory:')")
    assert bench.content(notes["q.db-wal"]) == "w"
    assert notes["q.db"]["kept"]


def test_what_is_not_the_script_s_doing_is_left_out(bench: Bench) -> None:
    write(bench.work / "helper.py", "")
    notes = bench.run(
        f"""
        import os, tempfile
        import helper
        open('/dev/null', 'w').write('x')
        with tempfile.TemporaryDirectory() as folder:
            open(folder + '/x', 'w').write('x')
        with tempfile.NamedTemporaryFile(), tempfile.TemporaryFile(), tempfile.SpooledTemporaryFile():
            pass
        os.makedirs(os.path.expanduser('~/.cache/torch'))
        open(os.path.expanduser('~/.cache/torch/x'), 'w').write('x')
        open({str(bench.aside / "spool")!r}, 'w').write('x')
        os.path.exists('nothing'), os.listdir('.'), open('script.py').read()
        try:
            os.remove('nothing')
        except OSError:
            pass
        os.makedirs('.', exist_ok=True)
        if os.fork() == 0:
            open('of a child', 'w').write('x')
            os._exit(0)
        os.wait()
        """,
        ignore=[str(bench.aside)],
    ).said("effect")
    assert notes == []


def test_connections_programs_and_questions_are_noted(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        notes = bench.run(
            f"""
            import os, socket, subprocess
            socket.create_connection(("127.0.0.1", {server.getsockname()[1]}))
            try:
                socket.create_connection(("127.0.0.1", 9), timeout=1)
            except OSError:
                pass
            subprocess.run(["git", "--version"])
            subprocess.run(["sort", "--version"], stdout=subprocess.DEVNULL)
            os.system("sort --version > /dev/null")
            os.system("mkdir -p made")
            try:
                input()
            except EOFError:
                pass
            """
        ).said("effect")
    assert [n["address"] for n in notes if n["kind"] == "connect"] == ["the local service at 127.0.0.1:9"]
    assert [(n["command"][0], n["known"]) for n in notes if n["kind"] == "program"] == [
        ("sort", False), ("sh", False), ("sh", True)
    ]  # fmt: skip
    assert [os.path.basename(n["path"]) for n in notes if n["kind"] == "write"] == ["made"]
    assert notes[-1] == {"kind": "input"}


def test_who_is_at_work_is_noted(bench: Bench) -> None:
    library = bench.work / "lib" / "site-packages"
    write(library / "wandb" / "__init__.py", "import subprocess\ndef init(): subprocess.run(['sort', '--version'])")
    write(library / "torchvision" / "datasets" / "__init__.py", "def fetch(): open('data', 'w').write('x')")
    write(library / "torchvision" / "__init__.py", "def save(): open('picture', 'w').write('x')")
    notes = bench.run(
        """
        import sys; sys.path.insert(0, "lib/site-packages"); sys.dont_write_bytecode = True
        import wandb, torchvision, torchvision.datasets
        wandb.init(), torchvision.datasets.fetch(), torchvision.save()
        """
    ).said("effect")
    assert [(n["kind"], n["by"]) for n in notes] == [("program", "tracker"), ("write", "fetch"), ("write", "")]


def test_notes_say_how_a_path_was_named(bench: Bench) -> None:
    work = str(bench.work)
    notes = bench.notes(
        f"""
        import os
        open('a', 'w'), open({work + "/b"!r}, 'w'), os.chdir('/'), open({work[1:] + "/c"!r}, 'w')
        """
    )
    assert [(name, notes[name]["relative"]) for name in "abc"] == [("a", True), ("b", False), ("c", True)]


def test_the_script_sees_nothing_of_it(bench: Bench, tmp_path: Path) -> None:
    old(bench, f="old", d__x="x")
    text = """
        import os, random, shutil, sys, tempfile, threading
        print(random.getstate()[1][:3] != (), tempfile.tempdir, threading.active_count(), os.listdir('.'))
        print(sorted(m for m in sys.modules if "gradwise" not in m and m not in ("typing", "ctypes", "_ctypes"))[:0])
        sys.addaudithook(lambda event, args: None)
        open('f', 'a').write('new'), os.rename('d', 'e'), open('g', 'x').close()
        for attempt in ("open('nothing')", "open('g', 'x')", "os.remove('nothing')", "os.mkdir('e')", "open('e', 'w')",
                        "open('missing/f', 'w')", "os.rename('nothing', 'x')", "open(chr(0), 'w')", "open(3.5, 'w')"):
            try:
                eval(attempt)
            except Exception as error:
                print(type(error), error)
        sys.setrecursionlimit(60)
        def deep():
            open('h', 'w').close()
            deep()
        try:
            deep()
        except RecursionError as error:
            print(type(error), sorted(os.listdir('.')))
    """
    plain = tmp_path / "plain"
    shutil.copytree(bench.work, plain)
    script = write(plain / "script.py", text)
    expected = run(script, plain, bench.aside, env=bench.env).ok()
    ran = bench.run(text)
    assert ran.stdout == expected.stdout
    assert ran.stderr == expected.stderr
    assert [k.rsplit("/", 1)[1] for k in tree(plain)] == [k.rsplit("/", 1)[1] for k in tree(bench.work)]


def test_errors_of_ours_never_reach_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def report(kind: str, note: dict[str, Any]) -> None:
        raise RuntimeError("broken")

    audit = Audit(report, str(tmp_path / "missing"), 1 << 20, ())
    (tmp_path / "f").write_text("x")
    audit.hook("open", (str(tmp_path / "f"), "w", os.O_WRONLY))
    audit.hook("open", (object(), "w", os.O_WRONLY))
    audit.hook("os.rename", ())
    audit.hook("subprocess.Popen", (None, None, None, None))
