"""The feature sets of an environment as a fold of events."""

import msgspec
import pytest

from fraudstream.core.environment_sets import EnvironmentSets, Phase, change_of, read_change
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import NINE, FeatureSet, packaged

WINDOWS = packaged()["windows"]


def fold(*changes: tuple[Phase, FeatureSet]) -> EnvironmentSets:
    sets = EnvironmentSets()
    for change in changes:
        sets = sets.after(change_of(*change))
    return sets


def test_of_two_workers_that_begin_an_environment_the_first_decides() -> None:
    assert list(fold(("begin", NINE), ("begin", WINDOWS)).live) == [NINE.hash]


def test_a_set_goes_from_filling_to_live_to_gone() -> None:
    filling = fold(("begin", NINE), ("filling", WINDOWS))
    assert (list(filling.live), list(filling.filling)) == ([NINE.hash], [WINDOWS.hash])
    live = filling.after(change_of("live", WINDOWS))
    assert (list(live.live), list(live.filling)) == ([NINE.hash, WINDOWS.hash], [])
    gone = live.after(change_of("retired", WINDOWS))
    assert (list(gone.live), list(gone.known)) == ([NINE.hash], [NINE.hash, WINDOWS.hash])
    assert gone.named("windows") == WINDOWS, "what was retired is still known"
    assert gone.named("else") is None


def test_a_name_of_two_sets_is_refused_a_hash_is_not() -> None:
    other = msgspec.structs.replace(NINE, hot_ratio=4.0)
    sets = fold(("begin", NINE), ("live", other))
    with pytest.raises(FraudstreamError, match=f"{NINE.hash} or {other.hash}"):
        sets.named("nine")
    assert sets.named(other.hash) == other


@pytest.mark.parametrize("feature_set", packaged().values(), ids=packaged())
def test_a_definition_survives_the_log(feature_set: FeatureSet) -> None:
    written = msgspec.json.decode(msgspec.json.encode(change_of("live", feature_set)))
    assert read_change(written) == change_of("live", feature_set)


def test_a_set_of_a_newer_program_is_refused() -> None:
    written = msgspec.to_builtins(change_of("live", NINE))
    with pytest.raises(Refused, match="update fraudstream"):
        read_change(written | {"hash": "0" * 16})
    written["feature_set"]["definitions"][0]["entity"] = "merchant"
    with pytest.raises(Refused, match="update fraudstream"):
        read_change(written)
