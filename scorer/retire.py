"""Ends the life of a feature set: no worker keeps it up any more, then its keys are deleted."""

import msgspec

from fraudstream.clients.feature_state import FeatureState, open_state
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import SetLog
from fraudstream.core.environment_sets import EnvironmentSets
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings
from scorer.fill import lease_of


class RetiredSet(msgspec.Struct, frozen=True):
    """A set that was retired, and how many keys it had."""

    name: str
    hash: str
    keys: int


def retire(settings: Settings, name: str, *, actor: str) -> RetiredSet:
    """Retire the set of that name or hash; once more, if that was cut short, deletes what is left.

    Raises:
        FraudstreamError: the environment never had such a set.
        Refused: the champion needs it, no other set is live, or somebody works on it.
        DependencyUnreachable: a server does not answer.
    """
    log = SetLog(settings)
    sets = log.refresh()
    chosen = sets.named(name)
    if chosen is None:
        raise FraudstreamError(
            f"this environment has no feature set {name}: look with `fraudstream features sets`"
        )
    if chosen.hash in sets.live:
        _check_unused(settings, sets, chosen)
    state = open_state(settings, chosen)
    with lease_of(state):
        if chosen.hash in {*sets.live, *sets.filling}:
            log.append("retired", chosen, actor=actor, why="features retire")
        keys = _empty(state)
    return RetiredSet(chosen.name, chosen.hash, keys)


def _check_unused(settings: Settings, sets: EnvironmentSets, chosen: FeatureSet) -> None:
    if list(sets.live) == [chosen.hash]:
        raise Refused(
            f"{chosen.name} is the only live feature set: fill another one with `fraudstream features fill`"
        )
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    champion = registry.alias(model_name(settings.environment), CHAMPION)
    if champion is not None and champion.feature_set == chosen.hash:
        raise Refused(
            f"the champion, version {champion.version}, needs feature set {chosen.name} ({chosen.hash}): "
            "promote a version of another live set first"
        )


def _empty(state: FeatureState) -> int:
    """Move the record to keys that are not there, which stops every worker's calls; delete the others.

    Each key goes in a call of its own, so nobody waits for long. The record stays: it says `retired` to a
    worker that has not read yet that the set is.
    """
    while (meta := state.look()) is not None:
        fresh = state.fresh("retired")
        if state.put(msgspec.structs.replace(fresh, revision=meta.revision + 1)):
            return state.forget_others()
    return 0
