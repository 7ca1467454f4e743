"""Which feature sets an environment has: a fold of the events in its audit log, oldest first."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_kinds import FeatureSet

Phase = Literal["begin", "filling", "live", "retired"]
"""`begin`: live from the start of an environment; counts only while no set is live."""


class SetChange(msgspec.Struct, frozen=True):
    """What became of a set, with its definition; the evidence of an audit event."""

    phase: Phase
    hash: str
    feature_set: FeatureSet


class EnvironmentSets(msgspec.Struct, frozen=True):
    """The sets by hash, each `filling` or `live`; `known` has those that were retired, too."""

    live: Mapping[str, FeatureSet] = {}
    filling: Mapping[str, FeatureSet] = {}
    known: Mapping[str, FeatureSet] = {}

    def after(self, change: SetChange) -> "EnvironmentSets":
        """Return the sets as they are after a change."""
        if change.phase == "begin" and self.live:
            return self
        own = {change.hash: change.feature_set}
        live = dict(self.live)
        filling = {each: found for each, found in self.filling.items() if each != change.hash}
        if change.phase in {"begin", "live"}:
            live |= own
        else:
            live.pop(change.hash, None)
        return EnvironmentSets(
            live, filling | own if change.phase == "filling" else filling, dict(self.known) | own
        )

    def named(self, name: str) -> FeatureSet | None:
        """Return the set of that name or hash: a present one, or else one that was retired; None for none.

        Raises:
            FraudstreamError: several have the name.
        """
        present = {**self.live, **self.filling}
        for sets in (present, self.known):
            found = [each for known, each in sets.items() if name in {known, each.name}]
            if len(found) > 1:
                hashes = " or ".join(each.hash for each in found)
                raise FraudstreamError(
                    f"several feature sets are called {name}: give the hash, {hashes}"
                )
            if found:
                return found[0]
        return None


def change_of(phase: Phase, feature_set: FeatureSet) -> SetChange:
    """Return the change of a set to a phase."""
    return SetChange(phase, feature_set.hash, feature_set)


def read_change(evidence: Mapping[str, object]) -> SetChange:
    """Return the change in the evidence of an audit event.

    Raises:
        Refused: a newer program wrote it; its definition would not give the same values here.
    """
    try:
        change = msgspec.convert(evidence, SetChange)
    except msgspec.ValidationError as exc:
        raise Refused(
            f"the audit log has a feature set that this program does not know ({exc}): update fraudstream"
        ) from exc
    if change.feature_set.hash != change.hash:
        raise Refused(
            f"the audit log has feature set {change.hash} ({change.feature_set.name}) with a definition that "
            f"is {change.feature_set.hash} to this program: update fraudstream"
        )
    return change
