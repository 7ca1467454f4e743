"""What a feature can be: kinds, their fields, the parameters they read, and what they say of themselves."""

import hashlib
from typing import Literal, NamedTuple

import msgspec

DAY_MS = 86_400_000

Entity = Literal["customer", "terminal"]
ENTITIES: tuple[Entity, ...] = ("customer", "terminal")


class Kind(NamedTuple):
    """One kind: the entities it can be of, whether it has a window, parameters it reads, its meaning.

    The meaning is a sentence with places for {entity}, {window} and {of}.
    """

    entities: tuple[Entity, ...]
    windowed: bool
    parameters: tuple[str, ...]
    meaning: str


_CLEAN = ("prior_sum_minor", "clean_max_minor", "clean_max_ratio", "clean_warm_up")
_HOT = (*_CLEAN, "hot_ratio", "none_days")
_RUN = (*_CLEAN, "label_delay_ms")
_BOTH = ENTITIES
_IN = "of the {entity} in the last {window}, this one included"

AGGREGATES: dict[str, Kind] = {
    "count": Kind(_BOTH, True, (), f"number of transactions {_IN}"),
    "sum": Kind(_BOTH, True, ("minor_per_major",), f"sum of the amounts {_IN}"),
    "mean": Kind(_BOTH, True, ("minor_per_major",), f"mean amount {_IN}"),
    "max": Kind(_BOTH, True, ("minor_per_major",), f"largest amount {_IN}"),
    "min": Kind(_BOTH, True, ("minor_per_major",), f"smallest amount {_IN}"),
    "std": Kind(
        _BOTH, True, ("minor_per_major",), f"standard deviation (population) of the amounts {_IN}"
    ),
    "distinct": Kind(
        _BOTH, True, (), f"number of different {{of}}s in the newest 1,024 transactions {_IN}"
    ),
    "since_last": Kind(
        _BOTH,
        True,
        ("none_days",),
        "days since the {entity}'s previous transaction in the last {window}",
    ),
}
PROFILES: dict[str, Kind] = {
    "amount": Kind((), False, ("minor_per_major",), "amount of this transaction"),
    "ratio": Kind(
        ("customer",), False, _CLEAN, "amount / clean mean of the {entity}'s earlier transactions"
    ),
    "largest_ratio": Kind(
        ("customer",), True, _CLEAN, "largest ratio in the {entity}'s last {window} before this one"
    ),
    "since_last_hot": Kind(
        ("customer",), True, _HOT, "days since the {entity}'s last hot transaction within {window}"
    ),
    "since_first_hot": Kind(
        ("customer",), True, _HOT, "days since the {entity}'s first hot transaction within {window}"
    ),
    "confirmed_run": Kind(
        ("terminal",),
        True,
        _RUN,
        "confirmed unexplained frauds of the {entity} back to its last confirmed genuine, within {window}",
    ),
    "run_age": Kind(
        ("terminal",),
        True,
        (*_RUN, "no_run_days"),
        "whole calendar days since the first fraud of the {entity}'s run, within {window}",
    ),
    "genuine_before_run": Kind(
        ("terminal",),
        True,
        (*_RUN, "no_run_days", "unknown_days"),
        "whole calendar days since the {entity}'s last confirmed genuine before its run, within {window}",
    ),
    "since_genuine": Kind(
        ("terminal",),
        True,
        ("label_delay_ms", "none_days"),
        "days since the {entity}'s last confirmed genuine within {window}",
    ),
    "fraud_share": Kind(
        _BOTH,
        True,
        ("label_delay_ms",),
        "share of frauds, by labels known by now, in {window} of the {entity}'s transactions that end a "
        "label delay ago",
    ),
    "age": Kind(_BOTH, False, (), "days since the {entity}'s first transaction"),
}
CLEAN_KINDS = frozenset({"ratio", "largest_ratio", "since_last_hot", "since_first_hot"})
HOT_KINDS = frozenset({"largest_ratio", "since_last_hot", "since_first_hot"})
RUN_KINDS = frozenset({"confirmed_run", "run_age", "genuine_before_run", "since_genuine"})
DISTINCT_MOST = 1_024
"""`distinct` looks at so many of a window's newest entries at most, so that a hot entity stays cheap."""


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: its name, its kind (an aggregate or a profile), and what the kind needs.

    `entity` is empty where the kind is of none; `window_ms` 0 where it has none; `of` is the entity whose
    values `distinct` counts, else empty.
    """

    name: str
    kind: str
    entity: Literal["customer", "terminal", ""] = ""
    window_ms: int = 0
    of: Literal["customer", "terminal", ""] = ""


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True):
    """Features in order and every constant of their definitions; amounts in minor units, times in ms.

    A ratio is amount / clean mean, rounded once to float32, and compared as rounded. An entity's entries
    are in order of (event_time_ms, id digest). `lateness_ms`: how far behind the newest transaction of its
    entity a late one may be and still be exact.
    """

    name: str
    definitions: tuple[Feature, ...]
    minor_per_major: int = 100
    """Features of amounts are in major units."""
    prior_sum_minor: int = 5_300
    """The clean mean is (sum + prior_sum) / (n + 1) over the customer's clean transactions."""
    clean_max_minor: int = 22_000
    clean_max_ratio: float = 2.5
    clean_warm_up: int = 3
    hot_ratio: float = 3.0
    lateness_ms: int = 7 * DAY_MS
    label_delay_ms: int = 7 * DAY_MS
    """Without a label, a transaction counts as genuine from event time + this on."""
    none_days: float = 99.0
    unknown_days: float = 200.0
    no_run_days: float = -1.0

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the features, in the order of the vector."""
        return tuple(feature.name for feature in self.definitions)

    @property
    def customer_retention_ms(self) -> int:
        """Return how far behind the customer's newest transaction an entry still counts."""
        return self.retention_ms("customer")

    @property
    def terminal_retention_ms(self) -> int:
        """Return how far behind the terminal's newest transaction an entry or label still counts."""
        return self.retention_ms("terminal")

    def retention_ms(self, entity: Entity) -> int:
        """Return how far any feature looks back at the entity, lateness included."""
        spans = [self._span_ms(each) for each in self.of_entity(entity)]
        return max(spans, default=0) + self.lateness_ms

    def of_entity(self, entity: Entity, kinds: frozenset[str] | None = None) -> list[Feature]:
        """Return the features of an entity, those of `kinds` only if given."""
        return [
            each
            for each in self.definitions
            if each.entity == entity and (kinds is None or each.kind in kinds)
        ]

    def _span_ms(self, feature: Feature) -> int:
        delay = self.label_delay_ms if feature.kind == "fraud_share" else 0
        return feature.window_ms + delay

    @property
    def parameters(self) -> dict[str, float]:
        """Return the parameters that a feature of this set reads, by name."""
        used = {"lateness_ms"}.union(*(kind_of(each).parameters for each in self.definitions))
        return {name: getattr(self, name) for name in PARAMETERS if name in used}

    @property
    def hash(self) -> str:
        """Return 16 hex digits of SHA-256 over the canonical JSON of all that changes a value."""
        content = (self.parameters, self.definitions)
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:16]


PARAMETERS = tuple(
    field.name
    for field in msgspec.structs.fields(FeatureSet)
    if field.name not in {"name", "definitions"}
)


def kind_of(feature: Feature) -> Kind:
    """Return the kind of a feature."""
    return AGGREGATES.get(feature.kind) or PROFILES[feature.kind]


def duration_text(ms: int) -> str:
    """Return a duration as a feature set file has it: the largest unit that divides it."""
    for unit, size in UNITS.items():
        if ms % size == 0:
            return f"{ms // size}{unit}"
    raise AssertionError(ms)


UNITS = {"d": DAY_MS, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def explain(feature: Feature) -> str:
    """Return what the feature means, as a sentence."""
    window = duration_text(feature.window_ms)
    return kind_of(feature).meaning.format(entity=feature.entity, window=window, of=feature.of)
