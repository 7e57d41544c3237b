"""Durations as the API writes them."""

from __future__ import annotations

import math
import re

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def duration(seconds: float) -> str:
    """Seconds as the API writes durations: `1m 30s`."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} is no duration in seconds")
    rest = round(seconds * 1000)
    said = []
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            said.append(f"{count}{unit}")
    return " ".join(said) or "0ms"


def read_duration(text: object) -> float | None:
    """What `duration` wrote, in seconds; nothing where it is none."""
    lengths, millis = dict(_UNITS), 0
    for part in str(text).split(" "):
        read = re.fullmatch(r"([0-9]+)([a-z]+)", part)
        if read is None or read[2] not in lengths:
            return None
        millis += int(read[1]) * lengths[read[2]]
    return millis / 1000
