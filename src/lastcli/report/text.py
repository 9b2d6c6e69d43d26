"""Numbers and names as people read them.

Names come out of files that others made: control characters, escape sequences, line breaks and characters that change
the direction of the text are shown as escapes, and very long names are cut in the middle.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Sequence
from typing import IO

__all__ = [
    "LONGEST_NAME",
    "bytes_text",
    "count",
    "error_text",
    "escaped",
    "is_share",
    "name_text",
    "nats_text",
    "peak_text",
    "points_text",
    "ratio_text",
    "relative_text",
    "rise_text",
    "safe_text",
    "seconds_text",
    "shrinkage",
    "sparkline",
    "times_text",
    "to_ascii",
    "wants_ascii",
]

LONGEST_NAME = 200
LONGEST_SENTENCE = 4000
# Relative numbers from here on are shown as factors.
MOST_PERCENT = 10.0
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BARS = "▁▂▃▄▅▆▇█"
_ASCII = {
    "→": "->",
    "–": "-",
    "−": "-",
    "…": "...",
    "∞": "inf",
    "λ": "lambda",
    "≤": "<=",
    "≥": ">=",
    "±": "+-",
    "×": "x",
    "·": ".",
    "₂": "2",
    "✓": "ok",
    "◀": "<",
    "★": "*",
    "●": "o",
    "◆": "#",
    "┄": "-",
    "─": "-",
    "│": "|",
    "└": "+",
    "░": ".",
} | dict(zip(_BARS, "_.,-=+#@", strict=True))


def name_text(text: object) -> str:
    """A name for a table: safe, and at most `LONGEST_NAME` characters before escaping."""
    return safe_text(text, LONGEST_NAME)


def safe_text(text: object, longest: int = LONGEST_SENTENCE) -> str:
    r"""`text` on one line, with everything invisible as an escape such as `\x1b`, cut in the middle when too long."""
    raw = str(text)
    if len(raw) > longest:
        raw = raw[: longest // 2] + "…" + raw[-(longest - longest // 2 - 1) :]
    return escaped(raw)


def escaped(text: str) -> str:
    r"""`text`, of any length, with everything invisible as an escape such as `\x1b`."""
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _HIDDEN else char
        for char in text
    )


def to_ascii(text: str) -> str:
    """`text` in ASCII: known signs by their usual spelling, the rest as escapes."""
    spelled = "".join(_ASCII.get(char, char) for char in text)
    return spelled.encode("ascii", "backslashreplace").decode("ascii")


def wants_ascii(stream: IO[str]) -> bool:
    """Whether `stream` should get ASCII only: its encoding is not Unicode, or the locale is C."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    if not encoding.startswith("utf"):
        return True
    if os.name != "posix":
        return False
    # Python itself sets LC_CTYPE=C.UTF-8 where it finds the C locale, so that value proves nothing
    types = os.environ.get("LC_CTYPE", "")
    locale = os.environ.get("LC_ALL") or ("" if types == "C.UTF-8" else types) or os.environ.get("LANG") or "C"
    return locale in ("C", "POSIX")


def count(number: float | None) -> str:
    """12345 → 12,345."""
    return "–" if number is None else f"{int(number):,}"


def ratio_text(ratio: float) -> str:
    """0.33 → 33%, 0.125 → 12.5%."""
    return f"{round(100 * ratio, 2):g}%"


# Metrics that are no fractions; every other one is shown in percent, and what it loses in points.
_NO_SHARES = frozenset({"mse", "rmse", "mae", "fit", "nll", "perplexity"})


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction, such as an accuracy."""
    return metric not in _NO_SHARES


def points_text(metric: str, fraction: float) -> str:
    """0.01 → 1 point for shares and fit, 0.01 nats for nll, 1% for errors."""
    if metric == "nll":
        return f"{fraction:g} nats"
    if not (is_share(metric) or metric == "fit"):
        return f"{100 * fraction:g}%"
    points = f"{100 * fraction:g}"
    return f"{points} point{'' if points == '1' else 's'}"


def nats_text(rise: float) -> str:
    """A rise of -log p in four digits; a gain has a minus."""
    text = f"{rise:.4f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def bytes_text(size: float | None) -> str:
    """182906 → 182.9 kB."""
    if size is None:
        return "–"
    value, power, units = float(size), 0, ("B", "kB", "MB", "GB", "TB")
    while abs(value) >= 999.95 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {units[power]}" if power else f"{int(value)} B"


def seconds_text(seconds: float | None) -> str:
    """0.0123 → 12.3 ms."""
    if seconds is None:
        return "–"
    if seconds >= 1000:
        return f"{seconds:.0f} s"
    scale, unit = (1.0, "s") if abs(seconds) >= 1 else (1e-3, "ms") if abs(seconds) >= 1e-3 else (1e-6, "µs")
    return f"{seconds / scale:.3g} {unit}"


def error_text(value: float | None) -> str:
    """A norm or an error in three digits; a dash where there is none."""
    if value is None:
        return "–"
    if math.isfinite(value):
        return f"{value:.3g}"
    return "not finite" if math.isnan(value) else "∞" if value > 0 else "−∞"


def peak_text(value: float | None, exact: bool | None) -> str:
    """An H∞ error: proved, a lower bound, or not bounded at all."""
    if value is not None and value == math.inf:
        return "not bounded"
    return f"≥ {error_text(value)}" if exact is False and value is not None else error_text(value)


def relative_text(value: float | None) -> str:
    """0.0213 → 2.13%, beyond 1000% the factor, ×53; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:.3g}%" if abs(value) < MOST_PERCENT else times_text(value)


def rise_text(rise: float | None) -> str:
    """A relative rise as its percentage; beyond 1000%, how many times the old value the new one is: ×8.2e11."""
    if rise is None or rise != rise:
        return "–"
    if abs(rise) >= MOST_PERCENT:
        return times_text(rise + 1)
    percent = 100 * rise
    return (f"{percent:+,.0f}%" if abs(percent) >= 100 else f"{percent:+.3g}%").replace("-", "−")


def times_text(factor: float) -> str:
    """8.2e11 → ×8.2e11, 53.2 → ×53: a factor in two digits."""
    if not math.isfinite(factor):
        return error_text(factor)
    digits, _, power = f"{factor:.1e}".partition("e")
    return f"×{digits}e{int(power)}" if int(power) >= 4 else f"×{factor:,.0f}"


def shrinkage(before: float, after: float) -> str:
    """How much smaller: −63%."""
    if before == 0:
        return "–"
    change = 100 * (after - before) / before
    return f"{'−' if change < 0 else '+'}{abs(change):.1f}%"


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """Values between 0 and `top` as a row of bars."""
    top = max(values, default=0.0) if top is None else top
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(int(max(value, 0.0) / top * len(_BARS)), len(_BARS) - 1)] for value in values)
