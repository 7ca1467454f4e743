"""What the audit topic says of earlier trainings and promotions, so that a trainer that starts knows it."""

import msgspec

from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.errors import Refused
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

LEARNED_FROM = "learned_from"
"""The key of `LearnedFrom` in the evidence of a publication."""

TOPICS = ("scores", "feedback")
"""What is learned from."""

Events = list[tuple[int, AuditEvent]]


class LearnedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was made of: the offsets that scores and labels were read up to, and how."""

    offsets: dict[str, dict[int, int]]
    feature_set: str
    days: int | None
    promote: bool


class Held(Refused):
    """A person went back to an earlier version: no service promotes another until a person has."""


def offsets_now(settings: Settings) -> dict[str, dict[int, int]]:
    """Return where scores and labels end now, by topic and partition.

    Raises:
        DependencyUnreachable: Kafka does not answer.
        FraudstreamError: a topic does not exist.
    """
    with TopicReader(settings) as log:
        bounds = {name: log.bounds(topic_name(settings.environment, name)) for name in TOPICS}
    return {
        name: {partition: end for partition, (_, end) in found.items()}
        for name, found in bounds.items()
    }


def learned_last(events: Events) -> LearnedFrom | None:
    """Return what the newest published version was made of.

    None if there is none, it does not say so, or its trainer ended before it was promoted or refused.
    """
    published = [event for _, event in events if event.event == "publish"]
    if not published or not any(_ends(event, published[-1]) for _, event in events):
        return None
    return _learned_from(published[-1])


def _ends(event: AuditEvent, training: AuditEvent) -> bool:
    """Return whether `event` is the last word on the version that `training` published."""
    if event.model_version != training.model_version:
        return False
    if event.event == "promote":
        return event.evidence.get("phase") == "done"
    return event.event == "refused" or (event.event == "gate" and not event.evidence["passed"])


def _learned_from(event: AuditEvent) -> LearnedFrom | None:
    try:
        return msgspec.convert(event.evidence.get(LEARNED_FROM), LearnedFrom, strict=False)
    except msgspec.ValidationError:  # A version of before such notes were made.
        return None


def check_not_taken_back(events: Events, champion: str | None) -> None:
    """Refuse to replace a champion that a person chose over a later version; promoting a later one ends that.

    `champion` is the version that the alias names now.

    Raises:
        Held: the last promotion, or whoever set the alias in MLflow since, went back.
    """
    done = [e for _, e in events if e.event == "promote" and e.evidence.get("phase") == "done"]
    if champion is None or not done:
        return
    last = done[-1]
    before = last.evidence.get("expected_champion")
    if int(champion) < int(last.model_version):
        why = f"somebody set the alias back from version {last.model_version} in MLflow"
    elif champion == last.model_version and before and int(champion) < int(str(before)):
        why = f"{last.actor} went back to it from version {before} ({last.why})"
    else:
        return
    raise Held(
        f"version {champion} stays champion: {why}; `fraudstream models promote` with a later version "
        "lets this service promote again"
    )
