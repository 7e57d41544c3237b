"""Durations as the API writes them."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """Seconds as the API writes durations: `1m 30s`."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} is no duration in seconds")
    rest = round(seconds * 1000)
    said = []
    for unit, length in (
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ):
        count, rest = divmod(rest, length)
        if count:
            said.append(f"{count}{unit}")
    return " ".join(said) or "0ms"
