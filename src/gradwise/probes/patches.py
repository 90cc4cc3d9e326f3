"""Attributes of torch replaced while watching, and put back afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any


class Patches:
    """A list of replacements that can be undone in one go."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._originals: dict[tuple[int, str], Any] = {}

    def replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Set `owner.name` to `wrap(its value)`; restored by `undo` unless someone replaced it again meanwhile."""
        original = owner.__dict__[name] if isinstance(owner, type) and name in owner.__dict__ else getattr(owner, name)
        wrapped = wrap(original)
        setattr(owner, name, wrapped)
        self._originals[id(owner), name] = original

        def restore() -> None:
            if owner.__dict__.get(name) is wrapped:
                setattr(owner, name, original)

        self._undo.append(restore)

    def hide_while(self, owner: Any, name: str, module: Any, names: Sequence[str]) -> None:
        """Make `owner.name(...)` see the originals of `module`'s replaced `names` (a compiler that reads source)."""

        def wrap(original: Any) -> Any:
            @functools.wraps(original)
            def call(*args: Any, **kwargs: Any) -> Any:
                ours = {n: getattr(module, n) for n in names if (id(module), n) in self._originals}
                for n in ours:
                    setattr(module, n, self._originals[id(module), n])
                try:
                    return original(*args, **kwargs)
                finally:
                    for n, function in ours.items():
                        setattr(module, n, function)

            return call

        self.replace(owner, name, wrap)

    def on_undo(self, action: Callable[[], None]) -> None:
        """Something else to take back."""
        self._undo.append(action)

    def undo(self) -> None:
        """Put everything back, last first."""
        while self._undo:
            self._undo.pop()()
