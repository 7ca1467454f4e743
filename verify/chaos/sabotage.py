"""Four defects that a worker can be given; the oracle must find each, or it proves nothing."""

from collections.abc import Callable
from functools import partial

from confluent_kafka import TopicPartition

from fraudstream.clients import feature_store
from fraudstream.clients.feature_library import Library, build_library, library_source
from fraudstream.core.feature_set import FeatureSet
from scorer.output import TransactionalOutput
from scorer.results import Output

Change = tuple[str, str]

NO_MARK: tuple[Change, ...] = (
    (
        "section.mark, section.replies = tonumber(mark or '-1'), replies or ''",
        "section.mark, section.replies = section[2], ''",
    ),
)
"""Every call begins where it says: a record that comes again is applied again."""

NO_REPLY: tuple[Change, ...] = (
    ("section.known, wrong = answer_again(section, section.again)", "section.known = 0"),
    ("local previous, last, start = section.mark,", "local previous, last, start = section[2],"),
)
"""A record that comes again is not stored again, but its features are computed from the state of now."""

TIE_BY_ARRIVAL: tuple[Change, ...] = (
    (
        "return part, position(part.rows, e.plan.row, part.n, t, digest)",
        "return part, count_until(part.rows, e.plan.row, part.n, t)",
    ),
    (
        "local k = position(part.rows, width, part.n, t, digest, row)",
        "local k = count_until(part.rows, width, part.n, t)",
    ),
)
"""Transactions of an entity at the same time stand in the order in which they came."""


def _commit_first() -> None:
    """Commit the offsets in a transaction of their own, then the results: a crash between loses them."""
    commit = TransactionalOutput.commit

    def reversed_order(
        output: TransactionalOutput,
        outputs: list[Output],
        offsets: list[TopicPartition],
        group_metadata: object,
    ) -> None:
        commit(output, [], offsets, group_metadata)
        commit(output, outputs, [], group_metadata)

    setattr(TransactionalOutput, "commit", reversed_order)  # noqa: B010 - mypy lets no method be assigned


def _change_library(changes: tuple[Change, ...]) -> None:
    """Have the worker load a function library with each (old, new) replaced in its source.

    Raises:
        ValueError: what is to be replaced does not stand there once.
    """

    def build(feature_set: FeatureSet) -> Library:
        source = library_source(feature_set)
        for old, new in changes:
            if source.count(old) != 1:
                raise ValueError(f"{old!r} stands {source.count(old)} times in the library")
            source = source.replace(old, new)
        return build_library(feature_set, source)

    vars(feature_store)["build_library"] = build


SABOTAGES: dict[str, Callable[[], None]] = {
    "commit-first": _commit_first,
    "no-mark": partial(_change_library, NO_MARK),
    "no-reply": partial(_change_library, NO_REPLY),
    "tie-by-arrival": partial(_change_library, TIE_BY_ARRIVAL),
}
