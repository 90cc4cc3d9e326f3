"""Opening a store's database, and saying in one sentence why that, or anything done with it, failed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from gradwise.recording import tables
from gradwise.recording.folder import FOLDER, make_folder

DEFAULT = f"{FOLDER}/runs.db"
ELSEWHERE = "name another store with --store or GRADWISE_STORE"


class StoreError(Exception):
    """A store that can't be used as asked: what is wrong, where, and what to do."""


class NoStoreError(StoreError):
    """There is no store yet at the place it was looked for."""


class Database:
    """An open database with gradwise's tables in it.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        create: make the file and the tables where they do not exist.
        timeout: seconds to wait for another process' lock.

    Raises:
        StoreError: it can't be opened, is no database, or a newer gradwise wrote it.
    """

    def __init__(self, url: str, create: bool, timeout: float) -> None:
        self.timeout = timeout
        self.where = url.partition("://")[0]  # the rest of what can't be parsed may hold a password
        with self._explained():
            parsed = _parsed(url)
        self.path = Path(parsed.database or "").absolute() if parsed.drivername == "sqlite" else None
        self.where = str(_short(self.path)) if self.path else parsed.render_as_string(hide_password=True)
        if self.path:
            self._check_folder(self.path, create)
        with self._explained():
            self._engine = _sqlite(self.path, timeout) if self.path else create_engine(parsed)
            try:
                self._patiently(lambda: self._check_schema(create))
            except DBAPIError as error:
                self.close()
                unwritable = _code(error) in ("SQLITE_READONLY", "SQLITE_CANTOPEN")
                if create or not self.path or not unwritable or _wal(self.path).exists():
                    raise
                # Nobody can be writing here (an archive, a read-only disk): read the file as it lies there.
                self._engine = _sqlite(self.path, timeout, immutable=True)
                self._check_schema(create)

    @contextmanager
    def begin(self, write: bool = False) -> Iterator[Connection]:
        """One transaction; a writing one waits for its turn before it starts rather than in the middle."""
        with self._explained(), self._engine.connect() as connection:
            connection.execution_options(gradwise_write=write)
            with connection.begin():
                yield connection

    def shrink(self) -> None:
        """Give the space of what was deleted back to the disk, where nobody else is busy with the file."""
        if self.path:
            try:
                with self._alone() as connection:
                    # As a script: sqlite3 takes one step of any other statement, which frees one page.
                    script = "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);"
                    connection.connection.cursor().executescript(script)
            except (DBAPIError, sqlite3.Error):
                pass

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _check_folder(self, path: Path, create: bool) -> None:
        if not create and not path.exists():
            raise NoStoreError(f"there is no store {self.where}: record a run first, or {ELSEWHERE}")
        folder = path.parent
        try:
            if create and folder.name == FOLDER:
                make_folder(folder)
        except OSError as error:
            raise StoreError(
                f"cannot keep recordings in {_short(folder)} ({error.strerror}): "
                f"make that folder writable, or {ELSEWHERE}"
            ) from None
        if not folder.is_dir():
            raise StoreError(f"there is no folder {_short(folder)} for the store: make it, or {ELSEWHERE}")

    def _check_schema(self, create: bool) -> None:
        with self._alone() as connection:
            known = inspect(connection).get_table_names()
            if tables.meta.name not in known and not create:
                raise NoStoreError(f"{self.where} holds no gradwise recordings: record a run, or {ELSEWHERE}")
            if self.path and not known:
                # Kept in the file for life: freed pages can be given back; readers and a writer don't wait.
                connection.exec_driver_sql("PRAGMA auto_vacuum=INCREMENTAL")
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        row = tables.meta.c
        schema = select(row.value).where(row.key == "schema")
        if tables.meta.name not in known:
            with self.begin(write=True) as connection:
                tables.metadata.create_all(connection)
                if connection.scalar(schema) is None:
                    connection.execute(insert(tables.meta).values(key="schema", value=str(tables.SCHEMA)))
        with self.begin() as connection:
            version = str(connection.scalar(schema))
        if version != str(tables.SCHEMA):
            raise StoreError(
                f"the store {self.where} was written by a newer gradwise (its schema is {version}, this one "
                f"knows {tables.SCHEMA}): upgrade gradwise, or {ELSEWHERE}"
            )

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A connection outside any transaction."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def _patiently(self, action: Callable[[], None]) -> None:
        """Try again while another process has the file locked: SQLite itself waits for some locks only."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return action()
            except DBAPIError as error:
                if _code(error) not in ("SQLITE_BUSY", "SQLITE_LOCKED") or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, ImportError) as error:
            raise StoreError(_sentence(error, self.where, self.timeout)) from error


def _sqlite(path: Path, timeout: float, immutable: bool = False) -> Engine:
    source = f"file:{quote(str(path))}" + "?immutable=1" * immutable

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(source, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if "gradwise_write" in options:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options["gradwise_write"] else "BEGIN")

    return engine


def _parsed(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except ValueError as error:  # a port that is no number
        raise ArgumentError(str(error)) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise StoreError(f"{url} keeps nothing: name a file, as in sqlite:///runs.db, or {ELSEWHERE}")
        return parsed.set(drivername="sqlite")
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _short(path: Path) -> Path:
    """`path` as a user would write it here."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _code(error: BaseException) -> str:
    """SQLite's name for what happened, without its details ("SQLITE_IOERR", not "SQLITE_IOERR_WRITE")."""
    origin: Any = error.orig if isinstance(error, DBAPIError) else error
    return "_".join((getattr(origin, "sqlite_errorname", None) or "").split("_")[:2])


_SENTENCES = {
    "SQLITE_BUSY": "another process has kept the store {where} locked for {timeout:g} s: wait for it to end",
    "SQLITE_FULL": "no space is left for the store {where}: free some, delete runs",
    "SQLITE_READONLY": "the store {where} is read-only: make the file and its folder writable",
    "SQLITE_CANTOPEN": "cannot open the store {where} ({detail}): check that the file and its folder are "
    "readable and writable",
    "SQLITE_IOERR": "the disk refused to read or write the store {where} ({detail}): check it and its space",
    "SQLITE_NOTADB": "{where} is not a gradwise store (no SQLite database at all): check the name",
    "SQLITE_CORRUPT": "the store {where} is damaged ({detail}): move it away or restore it",
}
_SENTENCES["SQLITE_LOCKED"] = _SENTENCES["SQLITE_BUSY"]


def _sentence(error: BaseException, where: str, timeout: float) -> str:
    detail = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    if isinstance(error, ImportError):
        package = "psycopg[binary]" if "postgresql" in where else error.name or "driver"
        what = f"the store {where} needs a driver that is not installed ({detail}): pip install '{package}'"
    elif isinstance(error, NoSuchModuleError):
        what = f"gradwise knows no database of the kind of {where}"
    elif isinstance(error, ArgumentError):
        what = f"the store's address ({where}://…) is not a database URL"
    else:
        template = _SENTENCES.get(_code(error), "the store {where} can't be used ({detail}): check the address")
        what = template.format(where=where, timeout=timeout, detail=detail)
    return f"{what}, or {ELSEWHERE}"
