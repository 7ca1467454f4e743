"""The part of the Lua library that is made for a feature set: parameters, plans, the vector.

`fraudstream features explain NAME --lua` prints it. A plan is a Lua table: what a row of an entity holds,
what its header keeps, which windows there are; features.lua does only what a plan names. The vector has a
line for each feature.
"""

from collections.abc import Iterable, Mapping

import msgspec

from fraudstream.core.feature_kinds import (
    CLEAN_KINDS,
    DISTINCT_MOST,
    HOT_KINDS,
    PARAMETERS,
    RUN_KINDS,
    Entity,
    Feature,
    FeatureSet,
)

SUMS = frozenset({"sum", "mean", "std"})
EXTREMES = frozenset({"max", "min"})
AMOUNTS = SUMS | EXTREMES
LABELLED = RUN_KINDS | {"fraud_share"}
_IN_WINDOWS = AMOUNTS | HOT_KINDS | {"count"}


class Plan(msgspec.Struct):
    """What is kept of one entity: fields of a row (name, struct format, bytes), windows by length in ms."""

    entity: Entity
    fields: list[tuple[str, str, int]]
    windows: dict[int, set[str]]
    distincts: list[int]
    runs: list[int]
    shares: list[int]
    flags: dict[str, bool]
    retention_ms: int

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row."""
        return sum(size for _, _, size in self.fields)


def plan_of(feature_set: FeatureSet, entity: Entity) -> Plan:
    """Return what must be kept of an entity for the features of a set."""
    features = feature_set.of_entity(entity)
    kinds = {each.kind for each in features}
    delay = feature_set.label_delay_ms

    def lengths(wanted: Iterable[str]) -> list[int]:
        return sorted({each.window_ms for each in features if each.kind in set(wanted)})

    return Plan(
        entity=entity,
        fields=_fields(entity, kinds),
        windows=_windows(features, delay),
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
        retention_ms=feature_set.retention_ms(entity),
    )


def _needs_clean(feature_set: FeatureSet) -> bool:
    """Tell whether a feature reads ratios; runs do, since they tell explained frauds from others."""
    return any(each.kind in CLEAN_KINDS | RUN_KINDS for each in feature_set.definitions)


def _fields(entity: Entity, kinds: set[str]) -> list[tuple[str, str, int]]:
    wanted = [
        ("t", "I6", 6, True),
        ("digest", "c8", 8, True),
        ("offset", "I6", 6, entity == "customer"),
        ("amount", "I5", 5, bool(kinds & AMOUNTS)),
        ("ratio", "f", 4, bool(kinds & HOT_KINDS)),
        ("unexplained", "B", 1, bool(kinds & RUN_KINDS)),
        ("other", "c8", 8, "distinct" in kinds),
    ]
    return [(name, kind, size) for name, kind, size, needed in wanted if needed]


def _windows(features: list[Feature], delay_ms: int) -> dict[int, set[str]]:
    """Return the windows by length, each with the groups of numbers that the header keeps of it."""
    windows: dict[int, set[str]] = {}
    for each in features:
        if each.kind in _IN_WINDOWS:
            groups = windows.setdefault(each.window_ms, set())
            groups |= {"asked"}
            groups |= {"sums"} if each.kind in SUMS else set()
            groups |= {"squares"} if each.kind == "std" else set()
            groups |= {"extremes"} if each.kind in EXTREMES else set()
            groups |= {"hot"} if each.kind in HOT_KINDS else set()
        if each.kind in LABELLED:
            windows.setdefault(delay_ms, set())
        if each.kind == "fraud_share":
            windows[delay_ms] |= {"asked"}
            windows.setdefault(delay_ms + each.window_ms, set()).add("asked")
    return dict(sorted(windows.items()))


def preamble(feature_set: FeatureSet) -> str:
    """Return parameters and plans as Lua."""
    plans = {entity: plan_of(feature_set, entity) for entity in ("customer", "terminal")}
    lines = [f"-- Made for feature set {feature_set.name} ({feature_set.hash})."]
    lines += [f"local {name.upper()} = {getattr(feature_set, name)!r}" for name in PARAMETERS]
    lines.append(f"local DISTINCT_MOST = {DISTINCT_MOST}")
    lines.append(f"local FEATURES = {len(feature_set.features)}")
    lines.append(f"local REPLY = '<i8i8i8I4{'f' * len(feature_set.features)}'")
    for plan in plans.values():
        lines += [*_plan_lua(plan, feature_set.label_delay_ms), ""]
    return "\n".join(lines)


def _plan_lua(plan: Plan, delay_ms: int) -> list[str]:
    """Return a plan as a Lua table."""
    table, places = plan.entity.upper(), list(plan.windows)
    lines = [f"local {table} = {{"]
    lines.append(f"  retention = {plan.retention_ms},")
    lines.append(f"  row = {plan.row_bytes},")
    at = 0
    for name, _, size in plan.fields:
        if name not in {"t", "digest", "offset"}:
            lines.append(f"  {'flag' if name == 'unexplained' else name} = {at},")
        at += size
    lines += [f"  {name} = true," for name, given in plan.flags.items() if given]
    lines.append("  windows = {")
    for length, groups in plan.windows.items():
        given = "".join(f", {group} = true" for group in sorted(groups))
        lines.append(f"    {{ length = {length}{given} }},")
    lines.append("  },")
    lines.append(
        "  distincts = {" + _list(f"{{ length = {each} }}" for each in plan.distincts) + "},"
    )
    lines.append("  runs = {" + _list(f"{{ length = {each} }}" for each in plan.runs) + "},")
    lines.append("  shares = {" + _list("{}" for _ in plan.shares) + "},")
    lines.append("}")
    inner = places.index(delay_ms) + 1 if delay_ms in places else 0
    for i, _ in enumerate(plan.runs, start=1):
        lines.append(f"{table}.runs[{i}].cursor = {table}.windows[{inner}]")
    for i, each in enumerate(plan.shares, start=1):
        outer = places.index(delay_ms + each) + 1
        lines.append(f"{table}.shares[{i}].inner = {table}.windows[{inner}]")
        lines.append(f"{table}.shares[{i}].outer = {table}.windows[{outer}]")
    return lines


def _list(items: Iterable[str]) -> str:
    text = ", ".join(items)
    return f" {text} " if text else ""


def vector(feature_set: FeatureSet) -> str:
    """Return the Lua that packs rows and lists the features."""
    lines = ["-- The rows and the features of this set."]
    for entity, arguments in (
        ("customer", "t, digest, offset, amount, ratio, other"),
        ("terminal", "t, digest, amount, unexplained, other"),
    ):
        fields = plan_of(feature_set, entity).fields  # type: ignore[arg-type]
        kinds, names = (
            "".join(kind for _, kind, _ in fields),
            ", ".join(name for name, _, _ in fields),
        )
        lines += [
            f"local function {entity}_row({arguments})",
            f"  return pack('<{kinds}', {names})",
            "end",
            "",
        ]
    lines += [
        "local function vector(t, amount, ratio)",
        "  local c, x = CUSTOMER, TERMINAL",
        "  return",
    ]
    plans = {entity: plan_of(feature_set, entity) for entity in ("customer", "terminal")}
    last = len(feature_set.definitions) - 1
    for i, each in enumerate(feature_set.definitions):
        value = _value(each, plans)
        lines.append(f"    {value}{',' if i < last else ''} -- {each.name}")
    lines += ["end", ""]
    return "\n".join(lines)


_VALUES = {
    "amount": "amount / MINOR_PER_MAJOR",
    "ratio": "ratio",
    "age": "(t - {e}.now_first) / DAY",
    "count": "{w}.count",
    "sum": "{w}.sum / MINOR_PER_MAJOR",
    "mean": "{w}.sum / ({w}.count * MINOR_PER_MAJOR)",
    "max": "{w}.max / MINOR_PER_MAJOR",
    "min": "{w}.min / MINOR_PER_MAJOR",
    "std": "deviation({w}) / MINOR_PER_MAJOR",
    "distinct": "{d}.count",
    "since_last": "{e}.now_previous > t - {length} and (t - {e}.now_previous) / DAY or NONE_DAYS",
    "largest_ratio": "{w}.now_top",
    "since_last_hot": "{w}.now_last > 0 and (t - {w}.now_last) / DAY or NONE_DAYS",
    "since_first_hot": "{w}.now_first > 0 and (t - {w}.now_first) / DAY or NONE_DAYS",
    "confirmed_run": "{r}.length_now",
    "run_age": "{r}.first and days_between({r}.first, t) or NO_RUN_DAYS",
    "genuine_before_run": "not {r}.first and NO_RUN_DAYS "
    "or {r}.genuine and days_between({r}.genuine, t) or UNKNOWN_DAYS",
    "since_genuine": "{r}.genuine and (t - {r}.genuine) / DAY or NONE_DAYS",
    "fraud_share": "{s}.rows > 0 and {s}.frauds / {s}.rows or 0",
}


def _value(feature: Feature, plans: Mapping[str, Plan]) -> str:
    """Return the Lua expression of a feature."""
    if not feature.entity:
        return _VALUES[feature.kind]
    plan, table = plans[feature.entity], "c" if feature.entity == "customer" else "x"

    def place(name: str, lengths: Iterable[int]) -> str:
        found = list(lengths)
        return (
            f"{table}.{name}[{found.index(feature.window_ms) + 1}]"
            if feature.window_ms in found
            else ""
        )

    return _VALUES[feature.kind].format(
        e=table,
        w=place("windows", plan.windows),
        d=place("distincts", plan.distincts),
        r=place("runs", plan.runs),
        s=place("shares", plan.shares),
        length=feature.window_ms,
    )
