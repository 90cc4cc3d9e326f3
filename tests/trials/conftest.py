"""What the tests of isolation share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from isolation_helpers import Doctor


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    made = Doctor(tmp_path)
    yield made
    if made.workspace is not None:
        made.workspace.close()
        assert not os.path.exists(made.workspace.folder)
