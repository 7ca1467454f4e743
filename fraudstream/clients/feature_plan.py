"""The part of the Lua library that is made for a feature set and stands before the rest: parameters, plans.

`fraudstream features explain NAME --lua` prints it. A plan is a Lua table: what a row of an entity holds,
what its header keeps, which windows there are; features.lua does only what a plan names.
"""

from collections.abc import Iterator

from fraudstream.clients.feature_layout import (
    MOST_ROWS,
    ROOM,
    Plan,
    Window,
    header_pieces,
    plan_of,
    size_of,
)
from fraudstream.core.feature_kinds import (
    DISTINCT_MOST,
    ENTITIES,
    PARAMETERS,
    FeatureSet,
    duration_text,
)

_READ_FLAGS = ("used", "labels", "clean")
"""What the hand-written library asks of a plan; the others only shape what is made for the set."""
_ENTRY = ("I6", "B", "I4", "I4", "I6")
"""An entry of the directory: start, level, rows, labels, earliest labelled_at; then sums."""


def preamble(feature_set: FeatureSet) -> str:
    """Return parameters and plans as Lua."""
    lines = [f"-- Made for feature set {feature_set.name} ({feature_set.hash})."]
    lines += [f"local {name.upper()} = {getattr(feature_set, name)!r}" for name in PARAMETERS]
    lines.append(f"local DISTINCT_MOST = {DISTINCT_MOST}")
    lines.append(f"local FEATURES = {len(feature_set.features)}")
    lines.append(f"local ROOM, MOST_ROWS = {ROOM}, {MOST_ROWS}")
    for entity in ENTITIES:
        plan = plan_of(feature_set, entity)
        lines += [f"local {entity.upper()} = {{", *_table(plan), "}"]
    return "\n".join([*lines, ""])


def _table(plan: Plan) -> Iterator[str]:
    yield f"  retention = {plan.retention_ms}, cell = {plan.cell}, cell_ms = {plan.cell_ms},"
    yield f"  row = {plan.row_bytes}," + "".join(
        f" {lua} = {plan.at(name)},"
        for name, lua in {
            "amount": "amount",
            "ratio": "ratio",
            "unexplained": "flag",
            "other": "other",
        }.items()
        if plan.at(name) is not None
    )
    yield from (f"  {name} = true," for name in _READ_FLAGS if plan.flags[name])
    yield from _header(plan)
    entry = [*_ENTRY]
    entry += ["d", "d", "d", "I5", "I5"] if plan.at("amount") is not None else []
    entry += ["f"] if plan.at("ratio") is not None else []
    yield f"  entry = '<{''.join(entry)}', entry_bytes = {size_of(entry)},"
    yield f"  shortest = {min((each.length_ms for each in plan.windows), default=plan.retention_ms)},"
    yield f"  whole_rows = {'true' if plan.distincts or plan.shares else 'false'},"
    yield "  windows = {"
    yield from (
        f"    {_window(window)}, -- {duration_text(window.length_ms)}" for window in plan.windows
    )
    yield "  },"


def _header(plan: Plan) -> Iterator[str]:
    """Yield the places of the header's fields, formats and sizes of both headers."""
    windowed = [name for name, _ in plan.small if "." not in name]
    names = [name for name, _ in plan.large]
    places = [
        f"{name} = {names.index(name) + 1}"
        for name in [*windowed[3:], "tail_n", "tail_start", "tail_level", "newest_label"]
    ]
    yield f"  {', '.join(places)},"
    for name, fields in (("small", plan.small), ("large", plan.large)):
        _, head = header_pieces(fields)[0]
        size = size_of(kind for _, kind in fields) + 1
        yield f"  {name}_fields = {len(fields)}, {name}_bytes = {size}, {name}_head = '{head}',"


def _window(window: Window) -> str:
    places = "".join(f", {name} = {place}" for name, place in window.places.items())
    return f"{{ length = {window.length_ms}{places} }}"
