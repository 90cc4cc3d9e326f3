"""Text that may hold anything (script names, paths, source lines) made safe and legible for a terminal."""

from __future__ import annotations

import re

_ASCII = {
    "✓": "+", "✗": "x", "·": "-", "→": "->", "…": "...", "×": "x", "÷": "/", "−": "-", "–": "-", "—": "-",
    "‖": "|", "≤": "<=", "≥": ">=", "≈": "~", "∞": "inf", "²": "^2", "η": "lr", "λ": "lambda", "ε": "eps",
    "β": "beta", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ",
}  # fmt: skip
_TO_ASCII = str.maketrans(_ASCII)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""`text` on one line, with nothing in it that a terminal would obey or its encoding lacks.

    Control and direction characters are spelled out. Where the encoding is not a UTF, typographic characters
    become their nearest ASCII.

    >>> printable("a\x1b[31mb\nc × 2")
    'a\\x1b[31mb c × 2'
    >>> printable("lr 5 → 0.15 ✓ naïve", "ascii")
    'lr 5 -> 0.15 + na\\xefve'
    """
    text = _UNSAFE.sub(lambda m: " " if m[0] in "\n\r\t" else m[0].encode("unicode_escape").decode(), text)
    if not encoding.lower().startswith("utf"):
        text, encoding = text.translate(_TO_ASCII), "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
