"""The store's tables, the same on SQLite and PostgreSQL.

A run is a row with its facts as JSON; a series is a row per set of labels; its points are blocks of `codec`.
JSON is kept as text: it may hold NaN, and the database never searches it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, LargeBinary, MetaData, Table, Text

SCHEMA = 1

metadata = MetaData()

meta = Table("gradwise_meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

runs = Table(
    "gradwise_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("parent", Text, index=True),
    Column("started", Float, nullable=False, index=True),
    Column("info", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("heartbeat", Float, nullable=False),
)

series = Table(
    "gradwise_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, ForeignKey(runs.c.id), nullable=False, index=True),
    Column("signal", Text, nullable=False),
    Column("source", Integer, nullable=False),
    Column("labels", Text, nullable=False),
    Column("number", Integer),  # the writer's own number for it, None once another series took that over
)

blocks = Table(
    "gradwise_blocks",
    metadata,
    Column("series", Integer, ForeignKey(series.c.id), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # points before this block
    Column("count", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

messages = Table(
    "gradwise_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, ForeignKey(runs.c.id), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("about", Integer),  # the optimizer's index: its last message replaces the one before
    Column("data", Text, nullable=False),
)

reports = Table(
    "gradwise_reports",
    metadata,
    Column("run", Text, ForeignKey(runs.c.id), primary_key=True),
    Column("data", Text, nullable=False),
)
