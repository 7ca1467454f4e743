"""Charts of a few lines of text: one block character a column, a blank where there is no data."""

import math
from collections.abc import Callable, Sequence

Points = Sequence[float | None]
Reduce = Callable[[Sequence[float]], float]

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = str.maketrans(BLOCKS[1:], ".:-=+*%#")
"""The same ramp for terminals without block characters."""
NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of one value or more."""
    return sum(values) / len(values)


def resample(points: Points, per_column: int, reduce: Reduce) -> list[float | None]:
    """Return one value for every `per_column` points from the first on; the last column may hold fewer.

    `reduce` says what a column shows: `mean` of a rate, `min` of a recall, `max` of a latency, so that
    the worst stays visible. Points without data (None, NaN, infinite) count for nothing; a column of
    only such points is None.
    """
    columns: list[float | None] = []
    for start in range(0, len(points), per_column):
        known = [
            p for p in points[start : start + per_column] if p is not None and math.isfinite(p)
        ]
        columns.append(reduce(known) if known else None)
    return columns


def newest(points: Points, width: int, at_least: int, reduce: Reduce) -> list[float | None]:
    """Return at most `width` columns of the newest points, `seconds_shown` many or all there are.

    Columns begin at whole multiples of their length in the history, so that a column keeps its value
    while the chart moves on.
    """
    per_column = -(-at_least // width)
    start = max(len(points) - per_column * width, 0)
    start = -(-start // per_column) * per_column
    return resample(points[start:], per_column, reduce)


def points_shown(width: int, at_least: int) -> int:
    """Return how many points `width` columns of `newest` cover."""
    return -(-at_least // width) * width


def nice_top(columns: Points) -> float:
    """Return the upper end of a scale from 0 that holds all: a round number, 1 without data."""
    largest = max((c for c in columns if c is not None), default=0.0)
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next((step * power for step in NICE if step * power >= largest), largest)


def chart(columns: Points, top: float, rows: int = 1) -> list[str]:
    """Return `rows` lines, the upper first, of a chart on the scale 0 to `top` (above 0).

    What is known is at least the lowest block and at most the highest; None is a blank in all lines.
    """
    steps = rows * 8
    levels = [0 if c is None else max(1, round(min(c / top, 1.0) * steps)) for c in columns]
    return [
        "".join(BLOCKS[max(0, min(8, level - below))] for level in levels)
        for below in range(steps - 8, -1, -8)
    ]
