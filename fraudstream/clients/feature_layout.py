"""How an entity is laid out in its string: what a row holds, what the header keeps, in which bytes.

feature_rows.lua describes the layout; here stand its sizes and, for one feature set, its fields.
"""

import math
from collections.abc import Iterable, Iterator

import msgspec

from fraudstream.core.feature_kinds import (
    CLEAN_KINDS,
    HOT_KINDS,
    RUN_KINDS,
    Entity,
    Feature,
    FeatureSet,
)

ROOM = 6
"""Rows in an entity's string go up to a multiple of this, so that most appends do not make it longer."""
MOST_ROWS = 512
"""An entity of more rows is kept in parts."""
CELLS = 6
"""A cell, by which entries expire, is the longest 2^n ms of which a retention has at least so many."""
LABEL_BYTES = 6 + 8 + 6 + 1
"""Of a label: event time, digest, labelled_at, code."""
FIELDS_AT_ONCE = 64
"""So many fields of a header are packed or read by one call: Lua has 250 registers for a call's values."""

SUMS = frozenset({"sum", "mean", "std"})
EXTREMES = frozenset({"max", "min"})
AMOUNTS = SUMS | EXTREMES
LABELLED = RUN_KINDS | {"fraud_share"}
_IN_WINDOWS = AMOUNTS | HOT_KINDS | {"count"}
_SIZES = {"I4": 4, "I5": 5, "I6": 6, "B": 1, "f": 4, "d": 8, "c8": 8}

_GROUPS = {
    "sums": [("total", "d")],
    "squares": [("high", "d"), ("low", "d")],
    "extremes": [("most", "I5"), ("most_t", "I6"), ("least", "I5"), ("least_t", "I6")],
    "hot": [("top", "f"), ("top_t", "I6"), ("first_hot", "I6"), ("last_hot", "I6")],
}
"""What the header keeps of a window for each group of numbers that is asked of it."""


class Window(msgspec.Struct):
    """A window that the header keeps: its groups, and the place of each of its fields in the header, from 1.

    `asked`: a feature reads it; others only say where rows older than the label delay begin.
    """

    length_ms: int
    groups: set[str]
    asked: bool
    places: dict[str, int]


class Plan(msgspec.Struct):
    """What is kept of one entity: fields of a row (name, struct format), windows by length, the header.

    `small` and `large` are the headers of an entity in one string and in parts, (name, struct format) each.
    `label_delay_ms` is at most the retention: a longer window would count rows that have expired from it.
    """

    entity: Entity
    fields: list[tuple[str, str]]
    windows: list[Window]
    distincts: list[int]
    runs: list[int]
    shares: list[int]
    flags: dict[str, bool]
    retention_ms: int
    label_delay_ms: int
    small: list[tuple[str, str]]
    large: list[tuple[str, str]]

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row."""
        return size_of(kind for _, kind in self.fields)

    @property
    def cell(self) -> int:
        """Return n of the cells of 2^n ms by which entries expire."""
        return max(0, math.floor(math.log2(self.retention_ms / CELLS)))

    @property
    def cell_ms(self) -> int:
        """Return the length of a cell."""
        return 1 << self.cell

    def at(self, field: str) -> int | None:
        """Return where a field begins in a row, None if rows lack it."""
        names = [name for name, _ in self.fields]
        if field not in names:
            return None
        return size_of(kind for _, kind in self.fields[: names.index(field)])

    def window(self, length_ms: int) -> Window:
        """Return the window of a length."""
        return next(each for each in self.windows if each.length_ms == length_ms)


def size_of(kinds: Iterable[str]) -> int:
    """Return the bytes of fields of these struct formats."""
    return sum(_SIZES[kind] for kind in kinds)


def header_pieces(fields: list[tuple[str, str]]) -> list[tuple[list[int], str]]:
    """Return a header in pieces that one call packs or reads: places of the fields, their struct formats.

    The last piece ends with a byte more, which tells an entity in parts (1) from one in a string (0).
    """
    found = []
    for first in range(0, len(fields), FIELDS_AT_ONCE):
        piece = fields[first : first + FIELDS_AT_ONCE]
        places = list(range(first + 1, first + 1 + len(piece)))
        found.append((places, "".join(kind for _, kind in piece)))
    places, kinds = found.pop()
    return [*found, (places, kinds + "B")]


def plan_of(feature_set: FeatureSet, entity: Entity) -> Plan:
    """Return what must be kept of an entity for the features of a set."""
    features = feature_set.of_entity(entity)
    kinds = {each.kind for each in features}
    retention_ms = feature_set.retention_ms(entity)
    delay_ms = min(feature_set.label_delay_ms, retention_ms)

    def lengths(wanted: Iterable[str]) -> list[int]:
        return sorted({each.window_ms for each in features if each.kind in set(wanted)})

    plan = Plan(
        entity=entity,
        fields=_fields(entity, kinds),
        windows=_windows(features, delay_ms),
        distincts=lengths(["distinct"]),
        runs=lengths(RUN_KINDS),
        shares=lengths(["fraud_share"]),
        flags={
            "used": bool(features) or entity == "customer",
            "age": "age" in kinds,
            "previous": "since_last" in kinds,
            "labels": bool(kinds & LABELLED),
            "clean": entity == "customer" and _needs_clean(feature_set),
        },
        retention_ms=retention_ms,
        label_delay_ms=delay_ms,
        small=[],
        large=[],
    )
    plan.small = list(_small_header(plan))
    plan.large = [*plan.small, *_large_header(plan)]
    names = [name for name, _ in plan.large]
    for i, window in enumerate(plan.windows):
        ours = {name: n for n, name in enumerate(names, start=1) if name.startswith(f"{i}.")}
        window.places = {name.removeprefix(f"{i}."): n for name, n in ours.items()}
    return plan


def _needs_clean(feature_set: FeatureSet) -> bool:
    """Tell whether a feature reads ratios; runs do, since they tell explained frauds from others."""
    return any(each.kind in CLEAN_KINDS | RUN_KINDS for each in feature_set.definitions)


def _fields(entity: Entity, kinds: set[str]) -> list[tuple[str, str]]:
    wanted = [
        ("t", "I6", True),
        ("digest", "c8", True),
        ("offset", "I6", entity == "customer"),
        ("amount", "I5", bool(kinds & AMOUNTS)),
        ("ratio", "f", bool(kinds & HOT_KINDS)),
        ("unexplained", "B", bool(kinds & RUN_KINDS)),
        ("other", "c8", "distinct" in kinds),
    ]
    return [(name, kind) for name, kind, needed in wanted if needed]


def _windows(features: list[Feature], delay_ms: int) -> list[Window]:
    """Return the windows, shortest first, each with the groups of numbers that the header keeps of it."""
    windows: dict[int, Window] = {}

    def window(length_ms: int, asked: bool) -> Window:
        found = windows.setdefault(length_ms, Window(length_ms, set(), asked, {}))
        found.asked = found.asked or asked
        return found

    for each in features:
        if each.kind in _IN_WINDOWS:
            groups = window(each.window_ms, True).groups
            groups |= {"sums"} if each.kind in SUMS else set()
            groups |= {"squares"} if each.kind == "std" else set()
            groups |= {"extremes"} if each.kind in EXTREMES else set()
            groups |= {"hot"} if each.kind in HOT_KINDS else set()
        if each.kind in LABELLED:
            window(delay_ms, each.kind == "fraud_share")
        if each.kind == "fraud_share":
            window(delay_ms + each.window_ms, True)
    return [windows[length] for length in sorted(windows)]


def _small_header(plan: Plan) -> Iterator[tuple[str, str]]:
    yield from (("newest", "I6"), ("rows", "I4"), ("labels", "I4"))
    if plan.flags["clean"]:
        yield from (("clean_n", "d"), ("clean_sum", "d"))
    if plan.flags["age"]:
        yield ("first", "I6")
    for i, window in enumerate(plan.windows):
        yield from ((f"{i}.index", "I4"), (f"{i}.rows", "I4"))
        for group, fields in _GROUPS.items():
            if group in window.groups:
                yield from ((f"{i}.{name}", kind) for name, kind in fields)


def _large_header(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what follows for an entity in parts: tail, newest label, the part where each window begins."""
    yield from (("tail_n", "I4"), ("tail_start", "I6"), ("tail_level", "B"), ("newest_label", "I6"))
    for i, _ in enumerate(plan.windows):
        yield (f"{i}.start", "I6")
