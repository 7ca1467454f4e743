"""A feature set file, checked line by line: TOML in, a `FeatureSet` out; `NINE` is the one that is served."""

import hashlib
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import Any, get_type_hints

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_kinds import (
    AGGREGATES,
    DAY_MS,
    ENTITIES,
    PARAMETERS,
    PROFILES,
    UNITS,
    Feature,
    FeatureSet,
)

__all__ = ["DAY_MS", "NINE", "Feature", "FeatureSet", "id_digest", "packaged", "parse"]

MOST_FEATURES = 100
LONGEST_MS = 1_000 * DAY_MS
MOST_AMOUNT = 10**12
_TYPES = get_type_hints(FeatureSet)
_DURATIONS = {name.removesuffix("_ms"): name for name in PARAMETERS if name.endswith("_ms")}


def parse(text: str, place: str, name: str) -> FeatureSet:
    """Return the set in a TOML text; `place` is what an error calls the file.

    Raises:
        SettingsError: names the field, its value and what is allowed.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{place} is no TOML: {exc}") from exc
    _only(found, ("parameters", "features"), f"{place}: table")
    parameters = _table(found.get("parameters", {}), f"{place}: parameters")
    features = _table(found.get("features", {}), f"{place}: features")
    if not 1 <= len(features) <= MOST_FEATURES:
        raise SettingsError(
            f"{place}: features has {len(features)} entries: 1 to {MOST_FEATURES} are allowed, one line each"
        )
    definitions = tuple(
        _feature(each, _table(fields, f"{place}: features.{each}"), f"{place}: features.{each}")
        for each, fields in features.items()
    )
    return FeatureSet(name=name, definitions=definitions, **_parameters(parameters, place))


def _feature(name: str, fields: Mapping[str, object], place: str) -> Feature:
    """Return one feature from its line."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise SettingsError(
            f"{place}: a name has small letters, digits and _ and begins with a letter"
        )
    if ("aggregate" in fields) == ("profile" in fields):
        raise SettingsError(
            f"{place} needs either aggregate ({_list(AGGREGATES)}) or profile ({_list(PROFILES)})"
        )
    field = "aggregate" if "aggregate" in fields else "profile"
    kinds = AGGREGATES if field == "aggregate" else PROFILES
    chosen = _one_of(fields[field], kinds, f"{place}.{field}")
    kind = kinds[chosen]
    allowed = [field, *["entity"] * bool(kind.entities), *["window"] * kind.windowed]
    allowed += ["of"] * (chosen == "distinct")
    _only(fields, allowed, f"{place}: field")
    for needed in allowed:
        if needed not in fields:
            raise SettingsError(f"{place}.{needed} is missing: {chosen} needs {_list(allowed)}")
    entity = _one_of(fields["entity"], kind.entities, f"{place}.entity") if kind.entities else ""
    others = [each for each in ENTITIES if each != entity]
    return Feature(
        name=name,
        kind=chosen,
        entity=entity,  # type: ignore[arg-type]
        window_ms=_duration(fields["window"], f"{place}.window") if kind.windowed else 0,
        of=_one_of(fields["of"], others, f"{place}.of") if "of" in allowed else "",  # type: ignore[arg-type]
    )


def _parameters(found: Mapping[str, object], place: str) -> dict[str, Any]:
    """Return the parameters by the names of their fields, durations in milliseconds."""
    names = {_written(name): name for name in PARAMETERS}
    _only(found, names, f"{place}: parameter")
    values: dict[str, Any] = {}
    for written, value in found.items():
        where = f"{place}: parameters.{written}"
        if written in _DURATIONS:
            values[_DURATIONS[written]] = _duration(value, where)
        else:
            values[names[written]] = _number(
                value, whole=_TYPES[names[written]] is int, place=where
            )
    return values


def _number(value: object, *, whole: bool, place: str) -> int | float:
    if whole:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_AMOUNT:
            raise SettingsError(f"{place} is {value!r}: a whole number from 1 to {MOST_AMOUNT}")
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or abs(value) > MOST_AMOUNT:  # type: ignore[arg-type]
        raise SettingsError(f"{place} is {value!r}: a finite number up to {MOST_AMOUNT}")
    return float(value)  # type: ignore[arg-type]


def _duration(value: object, place: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,11})(d|h|m|s|ms)", value) if isinstance(value, str) else None
    ms = int(found[1]) * UNITS[found[2]] if found else 0
    if not 1 <= ms <= LONGEST_MS:
        raise SettingsError(
            f"{place} is {value!r}: a whole number with d, h, m, s or ms, at most "
            f"{LONGEST_MS // DAY_MS}d, such as 14d or 90m"
        )
    return ms


def _one_of(value: object, allowed: Collection[str], place: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise SettingsError(f"{place} is {value!r}: allowed are {_list(allowed)}")
    return value


def _table(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise SettingsError(f"{place} is {value!r}: a table is expected")
    return value


def _only(found: Mapping[str, object], allowed: Collection[str], place: str) -> None:
    for name, value in found.items():
        if name not in allowed:
            raise SettingsError(
                f"{place} {name} (= {value!r}) is unknown: allowed are {_list(allowed)}"
            )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _written(parameter: str) -> str:
    return parameter.removesuffix("_ms") if parameter.endswith("_ms") else parameter


def packaged() -> dict[str, FeatureSet]:
    """Return the sets that come with the package, by name."""
    files = sorted(
        resources.files("fraudstream.feature_sets").iterdir(), key=lambda each: each.name
    )
    names = [each.name.removesuffix(".toml") for each in files if each.name.endswith(".toml")]
    return {name: _packaged(name) for name in names}


def _packaged(name: str) -> FeatureSet:
    file = resources.files("fraudstream.feature_sets") / f"{name}.toml"
    return parse(file.read_text(encoding="utf-8"), f"{name}.toml", name)


NINE = _packaged("nine")


def id_digest(name: str) -> bytes:
    """Return the 8-byte BLAKE2b digest by which the feature store knows a transaction (ADR 0010)."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
