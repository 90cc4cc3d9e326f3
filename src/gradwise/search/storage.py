"""The database that a study lies in: opened, waited for while it is away, and locked while a trial is claimed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

# Connections that a driver holds at most: one that waits for its turn, one that reads and writes, one for its pulse.
# Workers hold none.
_CONNECTIONS = 2
_SERVER = {
    "connect_timeout": 10, "application_name": "gradwise tune",
    # A server that vanished without a word is noticed within a minute.
    "keepalives": 1, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 45_000,
}  # fmt: skip


class StudyError(Exception):
    """A study that can't be made or opened: why, in one sentence."""


class NoStudiesError(StudyError):
    """A database that has no study yet."""

    def __init__(self, where: str) -> None:
        super().__init__(f"there are no studies in {where}: `gradwise tune SCRIPT` makes one")


class AwayError(Exception):
    """The study's database can't be reached just now: why, in a few words."""


class Storage:
    """Where a study's trials are kept.

    Args:
        url: a SQLAlchemy URL; None keeps all in memory.
        make: whether to make what isn't there.

    Raises:
        StudyError: it can't be used, or isn't there.
    """

    def __init__(self, url: str | None, make: bool = True) -> None:
        self.shared = url is not None
        self.where = "" if url is None else url.partition("://")[0]  # what can't be parsed may hold a password
        self._lock = ""
        self._engine: Engine | None = None
        with quietly():
            from optuna import storages

            self.optuna: optuna.storages.BaseStorage = storages.InMemoryStorage()
            if url is None:
                return
            with self.explained():
                parsed = _parsed(url)
                self.where = parsed.render_as_string(hide_password=True)
                if not make and not _there(parsed):
                    raise NoStudiesError(self.where)
                if parsed.get_backend_name() == "sqlite":
                    self.optuna = self._sqlite(parsed)
                else:
                    self.optuna = self._server(parsed)

    @property
    def key(self) -> str:
        """A short name for it, the same for the same database."""
        return hashlib.sha256(self.where.encode()).hexdigest()[:10]

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Nobody else who asks to be alone with the same thing is, meanwhile; a process that dies is alone no more.

        Raises:
            AwayError: the database can't be reached.
        """
        if self._lock:
            with open(self._lock, "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        elif self._engine is not None and self._engine.dialect.name == "postgresql":
            with reached():
                connection = self._engine.connect()
            try:
                with reached():
                    _take(connection, what)
                yield
            finally:
                with suppress(Exception):  # a connection that is gone holds no lock any more
                    connection.rollback()
                with suppress(Exception):
                    connection.close()
        else:
            yield

    def rest(self) -> None:
        """Hold no connection while there is nothing to say."""
        if self._engine is not None:
            self._engine.dispose()

    def _sqlite(self, url: URL) -> optuna.storages.BaseStorage:
        from optuna import storages
        from sqlalchemy import event

        def connected(connection: Any, record: Any) -> None:
            # No wait for the disk at every value: what a killed process wrote is there all the same.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        # Several drivers may share a study; SQLite makes them wait for each other.
        storage = storages.RDBStorage(url.render_as_string(), engine_kwargs={"connect_args": {"timeout": 60}})
        storage.engine.dispose()
        event.listen(storage.engine, "connect", connected)
        if url.database not in (None, "", ":memory:"):
            self._lock = f"{os.path.abspath(str(url.database))}-lock"
        return storage

    def _server(self, url: URL) -> optuna.storages.BaseStorage:
        from optuna import storages
        from sqlalchemy import create_engine

        postgresql = url.get_backend_name() == "postgresql"
        given: dict[str, Any] = {"pool_size": _CONNECTIONS, "max_overflow": 2}
        given["connect_args"] = {k: v for k, v in _SERVER.items() if k not in url.query} if postgresql else {}
        self._engine = create_engine(url, **given)
        with self.alone("tables"):  # many drivers may begin at once, and each would make them
            storage = storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=given)
        self._engine.dispose()
        self._engine = storage.engine
        return storage

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What keeps it from being opened as `StudyError`."""
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

        try:
            yield
        except ImportError as error:
            extra = "gradwise[postgresql]" if "psycopg" in str(error) else error.name or "its driver"
            raise StudyError(f"the study's database {self.where} needs a driver: pip install '{extra}'") from None
        except NoSuchModuleError:
            raise StudyError(f"gradwise knows no database of the kind of {self.where}") from None
        except ArgumentError:
            raise StudyError(f"the study's address ({self.where}://…) is no database URL") from None
        except (OptunaError, SQLAlchemyError, AwayError) as error:
            raise StudyError(f"the study's database {self.where} cannot be used: {reason(error)}") from error


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ValueError as error:  # a port that is no number
        raise ArgumentError(str(error)) from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _there(url: URL) -> bool:
    """Whether a database has studies."""
    from sqlalchemy import create_engine, inspect

    if url.get_backend_name() == "sqlite" and not os.path.exists(str(url.database)):
        return False
    engine = create_engine(url)
    try:
        return inspect(engine).has_table("studies")
    finally:
        engine.dispose()


def _take(connection: Connection, what: str) -> None:
    """Wait for a lock that is the transaction's, so that it ends with the connection at the latest."""
    from sqlalchemy import text

    number = int.from_bytes(hashlib.sha256(f"gradwise {what}".encode()).digest()[:8], "big", signed=True)
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


@contextmanager
def reached() -> Iterator[None]:
    """Errors that say that a database can't be reached, or not now, as `AwayError`."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        if any(map(_passing, _chain(error))):
            raise AwayError(reason(error)) from error
        raise


def reason(error: BaseException) -> str:
    """What a database said, in one line."""
    origins = [e.orig for e in _chain(error) if getattr(e, "orig", None) is not None]
    words = str(origins[0] if origins else error).strip().splitlines()
    return next((w.strip() for w in words if w.strip()), type(error).__name__)[:300]


def _chain(error: BaseException) -> Iterator[Any]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _passing(error: BaseException) -> bool:
    """Whether an error is of the kind that waiting helps against: no connection, locked, full, going down."""
    from sqlalchemy import exc

    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Optuna says of its experimental parts and of each trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
            yield
    finally:
        optuna.logging.set_verbosity(before)
