"""What the audit topic says of earlier trainings and promotions, so that a trainer that starts knows it."""

import msgspec

from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.errors import Refused
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from trainer.options import TrainingOptions

LEARNED_FROM = "learned_from"
"""The key of `LearnedFrom` in the evidence of a publication."""
BY_SERVICE = "by_service"
"""The key in the evidence of a promotion that says whether no person asked for it."""

TOPICS = ("scores", "feedback")
"""What is learned from."""

Events = list[tuple[int, AuditEvent]]


class LearnedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was made of: the offsets that scores and labels were read up to, and the options."""

    offsets: dict[str, dict[int, int]]
    feature_set: str
    days: int | None
    as_of_ms: int | None
    validation_share: float
    seed: int
    promote: bool


class Held(Refused):
    """A person went back to an earlier version: no service promotes another until a person has."""


def offsets_now(settings: Settings) -> dict[str, dict[int, int]]:
    """Return where scores and labels end now, by topic and partition.

    Raises:
        DependencyUnreachable: Kafka does not answer.
        Refused: a topic does not exist.
    """
    with TopicReader(settings) as log:
        bounds = {name: log.bounds(topic_name(settings.environment, name)) for name in TOPICS}
    return {
        name: {partition: end for partition, (_, end) in found.items()}
        for name, found in bounds.items()
    }


def learned_from(options: TrainingOptions, offsets: dict[str, dict[int, int]]) -> LearnedFrom:
    """Return what a training with these options learns from while the topics end there."""
    return LearnedFrom(
        offsets=offsets,
        feature_set=options.feature_set.hash,
        days=options.days,
        as_of_ms=options.as_of_ms,
        validation_share=options.validation_share,
        seed=options.seed,
        promote=options.promote,
    )


def learned_last(events: Events, like: LearnedFrom) -> LearnedFrom | None:
    """Return what the newest version with the options of `like` was made of.

    None if there is none, or its trainer ended before it was promoted or refused.
    """
    for place, (_, event) in reversed(list(enumerate(events))):
        learned = _learned_from(event) if event.event == "publish" else None
        if learned is not None and msgspec.structs.replace(learned, offsets=like.offsets) == like:
            return learned if _has_ended(event.model_version, events[place:]) else None
    return None


def _learned_from(event: AuditEvent) -> LearnedFrom | None:
    try:
        return msgspec.convert(event.evidence.get(LEARNED_FROM), LearnedFrom, strict=False)
    except msgspec.ValidationError:  # A version of before such notes were made.
        return None


def _has_ended(version: str, events: Events) -> bool:
    """Return whether the last word on a version is among the events."""
    return any(
        event.event == "refused"
        or _is_promotion(event)
        or (event.event == "gate" and event.evidence.get("passed") is False)
        for _, event in events
        if event.model_version == version
    )


def _is_promotion(event: AuditEvent) -> bool:
    """Return whether a version became champion by it; an intent alone says no such thing."""
    return event.event == "promote" and event.evidence.get("phase") == "done"


def check_not_taken_back(events: Events, champion: str | None) -> None:
    """Refuse to replace a champion that a person chose over a later version.

    It is over once a person promotes that later version, or one after it. `champion` is the version that the
    alias names now; where it names none, only a promotion that went back counts.

    Raises:
        Held: a promotion, or whoever set the alias in MLflow, went back.
    """
    current, left = 0, 0
    why = ""
    for _, event in events:
        if not _is_promotion(event):
            continue
        version = int(event.model_version)
        before = int(str(event.evidence.get("expected_champion") or current))
        if event.evidence.get(BY_SERVICE) or version >= max(left, before):
            left = 0
        elif version < before:
            left = max(left, before)
            why = f"{event.actor} went back to version {version} from {before} ({event.why})"
        current = version
    if not left and champion is not None and int(champion) < current:
        left, why = current, f"somebody set the alias back from version {current} in MLflow"
    if left:
        raise Held(
            f"version {champion or 'none'} stays champion: {why}; `fraudstream models promote` with version "
            f"{left} or a later one lets this service promote again"
        )
