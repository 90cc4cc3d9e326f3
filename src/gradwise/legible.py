"""Numbers, times and foreign text as people read them: one way for terminal, figures and pages."""

from __future__ import annotations

import math
import re

_ASCII = {
    "✓": "+", "✗": "x", "·": "-", "→": "->", "…": "...", "×": "x", "÷": "/", "−": "-", "–": "-", "—": "-",
    "‖": "|", "≤": "<=", "≥": ">=", "≈": "~", "∞": "inf", "²": "^2", "η": "lr", "λ": "lambda", "ε": "eps",
    "β": "beta", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ",
}  # fmt: skip
_TO_ASCII = str.maketrans(_ASCII)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def number(value: float | None, digits: int = 3) -> str:
    """A number as one would write it; "non-finite" for None, NaN and infinities.

    >>> number(0.0149812), number(12480), number(3.14e-7), number(None)
    ('0.015', '12,480', '3.14e-7', 'non-finite')
    """
    if value is None or not math.isfinite(value):
        return "non-finite"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    if 1e-4 <= abs(value) < 1e5:
        return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def duration(seconds: float) -> str:
    """Seconds as one would say them.

    >>> duration(0.42), duration(41.3), duration(192), duration(7500)
    ('0.4 s', '41 s', '3 min 12 s', '2 h 05 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


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
