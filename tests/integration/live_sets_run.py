"""The second feature set of the tests of live sets, its models, and the comparison with the twin."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from fraudstream.core.feature_set import NINE, FeatureSet, parse
from fraudstream.core.scores import Score, SetFeatures
from fraudstream.core.transaction import decode_feedback
from fraudstream.core.twin import Twin
from tests.integration.recovery_run import Run, transactions, undisturbed
from tests.integration.test_exactly_once import trained
from tests.processes import run as run_command
from trainer.export import Exported

OTHER_TOML = """
[parameters]
label_delay = "5d"

[features]
amount = { profile = "amount" }
customer_count_7d = { entity = "customer", window = "7d", aggregate = "count" }
customer_std_3d = { entity = "customer", window = "3d", aggregate = "std" }
customer_terminals_9d = { entity = "customer", window = "9d", aggregate = "distinct", of = "terminal" }
amount_ratio = { entity = "customer", profile = "ratio" }
terminal_run = { entity = "terminal", profile = "confirmed_run", window = "9d" }
terminal_share_7d = { entity = "terminal", profile = "fraud_share", window = "7d" }
"""
OTHER = parse(OTHER_TOML, "other.toml", "other")
"""What reads terminals reads labels only: the same whatever the order in which partitions are applied."""


def other_file(run: Run) -> str:
    """Return the path of the file that defines the set."""
    path = Path(run.settings.state_dir).parent / "other.toml"
    path.write_text(OTHER_TOML)
    return str(path)


def fill_other(run: Run) -> dict[str, object]:
    """Fill the set to its end; return the report."""
    done = run_command(run.settings, "features", "fill", other_file(run), "--json", "-")
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = msgspec.json.decode(done.stdout)
    assert report["hash"] == OTHER.hash
    return report


def scores_of(run: Run) -> list[Score]:
    decoder = msgspec.json.Decoder(Score)
    return [decoder.decode(record.value or b"") for record in run.log.records("scores")]


def said_of(score: Score, feature_set: FeatureSet) -> SetFeatures | None:
    """Return what a score says of a set; None if it was not live then."""
    if score.feature_set == feature_set.hash:
        return SetFeatures(score.features, score.apply_seq)
    others = {} if score.other_sets is msgspec.UNSET else score.other_sets
    return others.get(feature_set.hash)


def check_set(run: Run, feature_set: FeatureSet) -> int:
    """Compare all that the scores say of a set with the twin over the whole log; return their number.

    In each partition the set's first features are followed by no gap. Records from before come first,
    those after in the order in which they were applied. The state is that of an undisturbed run, byte
    by byte, so nothing was left out or counted twice.
    """
    scores = scores_of(run)
    assert_no_gap(scores, feature_set)
    records = transactions(run)
    answers = [decode_feedback(record.value) for record in run.log.records("feedback")]
    twin = Twin(feature_set)
    for answer in answers:
        twin.label(answer)
    compared = 0
    places: set[int] = set()
    for place, found in in_order(scores, feature_set):
        reply = twin.apply(*place, records[place])
        if found is not None:
            assert list(reply.features) == found.features, (place, feature_set.features)
            places.add(found.apply_seq)
            compared += 1
    assert len(places) == compared, "a place was given twice"
    state = run.server.state(run.settings.environment, "ct", feature_set.hash)
    assert state, "keys of the set must be found, or nothing is compared"
    assert state == undisturbed(run, records, answers, feature_set)
    return compared


def in_order(
    scores: list[Score], feature_set: FeatureSet
) -> Iterator[tuple[tuple[int, int], SetFeatures | None]]:
    """Yield position and features: those from before the set was live, then by place."""
    found = [((s.source_partition, s.source_offset), said_of(s, feature_set)) for s in scores]
    before = sorted(place for place, features in found if features is None)
    yield from ((place, None) for place in before)
    after = [(place, features) for place, features in found if features is not None]
    yield from sorted(after, key=lambda each: each[1].apply_seq)


def assert_no_gap(scores: list[Score], feature_set: FeatureSet) -> None:
    by_partition = defaultdict(list)
    for score in sorted(scores, key=lambda each: each.source_offset):
        by_partition[score.source_partition].append(said_of(score, feature_set) is not None)
    for partition, has in by_partition.items():
        assert has == sorted(has), f"a gap in partition {partition}"
        assert has[-1], f"partition {partition} never got the set"


def some_model(feature_set: FeatureSet = NINE) -> Exported:
    """Return a model that reads a set; what it learned means nothing."""
    random = np.random.default_rng(5)
    features = random.lognormal(0, 1.5, (3_000, len(feature_set.features))).astype(np.float32)
    return trained(features, features[:, 0] > 8, feature_set)
