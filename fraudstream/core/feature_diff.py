"""In what two feature sets differ, and why a model of one cannot be served by the other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from fraudstream.core.feature_kinds import (
    AGGREGATES,
    PARAMETERS,
    Feature,
    FeatureSet,
    duration_text,
)
from fraudstream.core.feature_set import packaged


class Difference(msgspec.Struct, frozen=True):
    """One difference: what differs, and what each set has there ("" where it has nothing)."""

    what: Literal["parameter", "feature", "order"]
    name: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}: {self.first or 'none'} -> {self.second or 'none'}"


def differences(first: FeatureSet, second: FeatureSet) -> list[Difference]:
    """Return all that makes the values of two sets differ, parameters first; empty: the same set."""
    return [
        *_parameters(first.parameters, second.parameters),
        *_features(_lines(first.definitions), _lines(second.definitions)),
    ]


def mismatch(
    trained_hash: str,
    names: Sequence[str],
    served: FeatureSet,
    others: Mapping[str, FeatureSet] | None = None,
) -> str:
    """Return how the set a model was trained on differs from the served one, as a sentence.

    The trained set is known if it is packaged or one of `others` (by hash); of any other only the names of
    its features are.
    """
    known = definition_of(trained_hash, others or {})
    if known is None:
        trained = dict.fromkeys(names, "present")
        found = [*_features(trained, dict.fromkeys(served.features, "present"))]
    else:
        found = differences(known, served)
    if not found:
        return "their features have the same names: parameters or windows differ"
    return "; ".join(map(str, found))


def definition_of(wanted: str, others: Mapping[str, FeatureSet]) -> FeatureSet | None:
    """Return the set of a hash if it is one of `others` or packaged."""
    packages = {each.hash: each for each in packaged().values()}
    return others.get(wanted) or packages.get(wanted)


def definition_text(feature: Feature) -> str:
    """Return the definition of a feature as its line in a file has it."""
    field = "aggregate" if feature.kind in AGGREGATES else "profile"
    entries = [("entity", feature.entity), (field, feature.kind), ("of", feature.of)]
    window = duration_text(feature.window_ms) if feature.window_ms else ""
    entries.insert(1, ("window", window))
    return "{ " + ", ".join(f'{name} = "{value}"' for name, value in entries if value) + " }"


def parameter_text(name: str, value: float) -> str:
    """Return a parameter's value as a file has it."""
    return duration_text(int(value)) if name.endswith("_ms") else f"{value:g}"


def _lines(features: Sequence[Feature]) -> dict[str, str]:
    return {each.name: definition_text(each) for each in features}


def _parameters(first: Mapping[str, float], second: Mapping[str, float]) -> Iterator[Difference]:
    """Yield the parameters that both read and that differ; what one does not read changes nothing."""
    for name in PARAMETERS:
        if name in first and name in second and first[name] != second[name]:
            values = (parameter_text(name, each[name]) for each in (first, second))
            yield Difference("parameter", name.removesuffix("_ms"), *values)


def _features(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Difference]:
    """Yield features of other definitions, those that one set lacks, and another order of the same."""
    for name in [*first, *(each for each in second if each not in first)]:
        if first.get(name) != second.get(name):
            yield Difference("feature", name, first.get(name, ""), second.get(name, ""))
    common = [name for name in first if name in second], [name for name in second if name in first]
    moved = [name for name, other in zip(*common, strict=True) if name != other]
    if moved:
        yield Difference("order", "of features", ", ".join(common[0]), ", ".join(common[1]))
