"""Whatever is wrong with a store, the user gets one sentence: what, where, and what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gradwise.recording.frames import Declaration, Points
from gradwise.recording.recording import RunInfo
from gradwise.recording.signals import LOSS
from gradwise.recording.store import NoStoreError, Store, StoreError


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's licence to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def sentence(error: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "--store" in text
    return text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that any user may enter."""
    folder = tmp_path_factory.mktemp("world")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return folder


def test_the_default_store_is_hidden_and_ignored_by_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADWISE_STORE", raising=False)
    with Store.open() as store:
        store.create(RunInfo("a"))
        assert store.where == ".gradwise/runs.db"
        monkeypatch.chdir("/")
        store.create(RunInfo("b"))
    assert (tmp_path / ".gradwise" / "runs.db").exists()
    assert (tmp_path / ".gradwise" / ".gitignore").read_text() == "*\n"


def test_the_environment_names_a_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWISE_STORE", f"sqlite:///{path}")
    Store.open().close()
    assert path.exists()


@pytest.mark.parametrize("name", ["with space.db", "ünï?#&%41.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    with Store.open(str(tmp_path / name)) as store:
        store.create(RunInfo("a"))
    assert (tmp_path / name).exists()
    with Store.open(str(tmp_path / name), create=False) as store:
        assert store.resolve("last") == "a"


def test_readers_and_a_writer_do_not_wait_for_each_other(path: Path) -> None:
    with Store.open(str(path), timeout=0.1) as store, Store.open(str(path), timeout=0.1) as other:
        run = store.create(RunInfo("a"))
        with other._database.begin() as reading:
            before = reading.exec_driver_sql("SELECT count(*) FROM gradwise_series").scalar()
            store.append(run, [Declaration(0, LOSS.name, 0)])
            assert reading.exec_driver_sql("SELECT count(*) FROM gradwise_series").scalar() == before == 0


def test_looking_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADWISE_STORE", raising=False)
    with pytest.raises(NoStoreError, match=r"there is no store \.gradwise/runs\.db") as error:
        Store.open(create=False)
    sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_holds_no_recordings(path: Path) -> None:
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(NoStoreError, match="holds no gradwise recordings"):
        Store.open(str(path), create=False)


def test_a_database_of_something_else_is_shared(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE studies (id)")
    with Store.open(str(path)) as store:
        store.create(RunInfo("a"))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM studies").fetchone() == (0,)


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"epoch,loss\n" * 1000)
    with pytest.raises(StoreError, match="is not a gradwise store") as error:
        Store.open(str(path))
    assert str(path) in sentence(error)
    assert path.read_bytes() == b"epoch,loss\n" * 1000


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere for the store: make it") as error:
        Store.open(str(tmp_path / "nowhere" / "runs.db"))
    sentence(error)


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the store") as error:
        Store.open(str(tmp_path))
    sentence(error)


def test_a_file_in_place_of_the_hidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gradwise").touch()
    with pytest.raises(StoreError, match=r"cannot keep recordings in \.gradwise \(File exists\)") as error:
        Store.open(".gradwise/runs.db")
    sentence(error)


def test_an_unwritable_working_directory(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    world.chmod(0o555)
    with (
        unprivileged(),
        pytest.raises(StoreError, match=r"in \.gradwise \(Permission denied\): make that folder") as error,
    ):
        Store.open(".gradwise/runs.db")
    sentence(error)


def test_a_read_only_store_can_be_read_but_not_written(world: Path) -> None:
    path = world / "runs.db"
    with Store.open(str(path)) as store:
        store.create(RunInfo("a"))
    path.chmod(0o444)
    world.chmod(0o555)
    with unprivileged():
        with Store.open(str(path), create=False) as store:
            assert store.resolve("last") == "a"
        with pytest.raises(StoreError) as error, Store.open(str(path)) as store:
            store.create(RunInfo("b"))
        assert "writable" in sentence(error)


def test_an_unreadable_store(world: Path) -> None:
    path = world / "runs.db"
    Store.open(str(path)).close()
    path.chmod(0)
    with (
        unprivileged(),
        pytest.raises(StoreError, match=r"cannot open the store .*readable") as error,
    ):
        Store.open(str(path), create=False)
    sentence(error)


def test_a_locked_store(path: Path) -> None:
    with Store.open(str(path), timeout=0.1) as store:
        run = store.create(RunInfo("a"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked for 0\.1 s: wait for it to end") as error:
            store.append(run, [])
        sentence(error)
        other.execute("ROLLBACK")
        other.close()
        store.append(run, [])


def test_a_store_locked_while_it_is_made(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreError, match="locked for"):
        Store.open(str(path), timeout=0.1)
    other.execute("ROLLBACK")
    other.close()


def test_a_full_disk(path: Path) -> None:
    with Store.open(str(path)) as store:
        run = store.create(RunInfo("a"))
        store.append(run, [Declaration(0, LOSS.name, 0)])
        with store._database._alone() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=30")
        noise = np.random.default_rng(0).random(100_000)
        with pytest.raises(StoreError, match="no space is left for the store") as error:
            store.append(run, [Points(0, np.arange(100_000), noise)])
        sentence(error)
        store.append(run, [Points(0, np.arange(10), noise[:10])])
        assert len(store.read(run, LOSS)) == 10


def test_a_damaged_block_is_named(path: Path) -> None:
    with Store.open(str(path)) as store:
        run = store.create(RunInfo("a"))
        store.append(run, [Declaration(0, LOSS.name, 0), Points(0, np.arange(100), np.arange(100) / 1.0)])
        with sqlite3.connect(path) as other:
            (block,) = other.execute("SELECT data FROM gradwise_blocks").fetchone()
            other.execute("UPDATE gradwise_blocks SET data = ?", (block[:-1] + b"\0",))
        with pytest.raises(StoreError, match=r"run a in .* is damaged: loss/train from its point 0 on"):
            store.load(run)


def test_a_damaged_database(path: Path) -> None:
    with Store.open(str(path)) as store:
        for i in range(300):
            store.create(RunInfo(f"run-{i}", facts={"text": "x" * 500}))
    data = bytearray(path.read_bytes())
    data[8192:-4096] = os.urandom(len(data) - 8192 - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged .*restore it") as error, Store.open(str(path)) as store:
        store.runs()
    sentence(error)


def test_a_newer_schema(path: Path) -> None:
    Store.open(str(path)).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE gradwise_meta SET value = '7'")
    with pytest.raises(StoreError, match=r"a newer gradwise \(its schema is 7, .*: upgrade") as error:
        Store.open(str(path))
    sentence(error)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
        ("nosuchdb://u:secret@host/db", "no database of the kind of nosuchdb"),
        ("://", "address .*is not a database URL"),
        ("nosuchdb://u:secret@host:port/db", "address .*is not a database URL"),
        ("postgresql+asyncpg0://u:secret@h/db", "no database of the kind of"),
    ],
)
def test_a_useless_address(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as error:
        Store.open(url)
    assert "secret" not in sentence(error)


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    for scheme in ("postgresql", "postgres"):
        with pytest.raises(
            StoreError, match=r"driver that is not installed .*pip install 'psycopg\[binary\]'"
        ) as error:
            Store.open(f"{scheme}://u:secret@localhost/db")
        assert "secret" not in sentence(error)
