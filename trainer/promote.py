"""Hop 7 of training: a version becomes champion, and of two that want to, one is refused.

MLflow's aliases have no compare-and-set; the order of the audit topic's one partition decides:

1. read the audit log to its end; an intent without its end younger than a minute refuses this one
2. read the champion: that is the one this promotion expects to replace
3. append the intent; if another one came in between 1 and this, the earlier of the two goes on
4. move `previous`, then `champion`, and read both back
5. append the end. Killed before it, the intent is ignored a minute later and a promotion may be repeated
"""

import msgspec

from fraudstream.clients import audit_log
from fraudstream.clients.inference import load_live_version
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import SetLog
from fraudstream.core.environment_sets import EnvironmentSets, change_of
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import CHAMPION, PREVIOUS, ModelVersion, model_name
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from trainer.past import BY_SERVICE, Events, Held, check_not_taken_back

INTENT_EXPIRES_MS = 60_000


class Promotion(msgspec.Struct, frozen=True):
    """What came of it: `previous` is the former champion's version; None if there was none.

    `held` says why a service may not promote for now.
    """

    version: str
    previous: str | None
    moved: bool
    held: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants which version as champion, why, and when (UTC milliseconds).

    `by_service`: nobody asked for this version, so it does not replace one that somebody went back to.
    """

    version: str
    actor: str
    why: str
    now_ms: int
    by_service: bool = False


def check_promotable(
    registry: ModelRegistry, name: str, version: str, sets: EnvironmentSets
) -> ModelVersion:
    """Return the version after fetching and loading it as a scorer would.

    Raises:
        FraudstreamError: it does not exist.
        Refused: its feature set is not live, or a check of its digest or contract fails.
    """
    found = registry.version(name, version)
    if found is None:
        raise FraudstreamError(
            f"version {version} of {name} does not exist: look with `fraudstream models list`"
        )
    load_live_version(registry, found, sets)
    return found


def promote(
    settings: Settings, registry: ModelRegistry, order: Order, *, feature_set: FeatureSet
) -> Promotion:
    """Make a version champion and the former champion `previous`; nothing moves if it is champion already.

    `feature_set` is the one that an environment without any live set will begin with.

    Raises:
        FraudstreamError: the version does not exist, or the alias does not read back as written.
        Refused: the version fails a check, or another promotion is under way or came first.
        Held: a service orders it, and a person went back to an earlier version.
        DependencyUnreachable: Kafka or MLflow does not answer.
    """
    name = model_name(settings.environment)
    sets = SetLog(settings).refresh()
    if not sets.live:
        sets = sets.after(change_of("live", feature_set))
    check_promotable(registry, name, order.version, sets)
    events = audit_log.read_events(settings, name)
    _refuse_beside_open_intent(events, name, order)
    champion = registry.alias(name, CHAMPION)
    expected = champion.version if champion else None
    if order.by_service:
        _hold_if_taken_back(settings, events, order, champion=expected)
    if expected == order.version:
        return Promotion(order.version, None, moved=False)
    intent = audit_log.append(settings, _event(name, order, phase="intent", expected=expected))
    seen = events[-1][0] + 1 if events else 0
    _refuse_if_second(settings, name, order, between=(seen, intent))
    if expected is not None:
        registry.set_alias(name, PREVIOUS, expected)
    registry.set_alias(name, CHAMPION, order.version)
    _read_back(registry, name, order.version)
    audit_log.append(
        settings, _event(name, order, phase="done", expected=expected, intent_offset=intent)
    )
    return Promotion(order.version, expected, moved=True)


def _refuse_beside_open_intent(events: Events, name: str, order: Order) -> None:
    """Refuse while a young intent has no end yet."""
    closed = {event.evidence.get("intent_offset") for _, event in events}
    for offset, event in events:
        young = order.now_ms - event.at_ms < INTENT_EXPIRES_MS
        if event.evidence.get("phase") == "intent" and offset not in closed and young:
            raise Refused(
                f"{event.actor} is promoting version {event.model_version} of {name} at this moment: "
                "look with `fraudstream models list`, and repeat the command in a minute"
            )


def _hold_if_taken_back(
    settings: Settings, events: Events, order: Order, *, champion: str | None
) -> None:
    try:
        check_not_taken_back(events, champion)
    except Held as exc:
        event = _event(model_name(settings.environment), order, phase="done", expected=champion)
        held = msgspec.structs.replace(event, event="refused", why=str(exc))
        audit_log.append(settings, held)
        raise


def _refuse_if_second(
    settings: Settings, name: str, order: Order, *, between: tuple[int, int]
) -> None:
    first, own = between
    rivals = [
        event
        for offset, event in audit_log.read_events(settings, name)
        if first <= offset < own and event.evidence.get("phase") == "intent"
    ]
    if not rivals:
        return
    refusal = msgspec.structs.replace(
        _event(name, order, phase="done", expected=None, intent_offset=own), event="refused"
    )
    audit_log.append(settings, refusal)
    raise Refused(
        f"version {rivals[0].model_version} of {name} is being promoted by {rivals[0].actor} and came "
        f"first: version {order.version} stays as it is; look with `fraudstream models list`"
    )


def _read_back(registry: ModelRegistry, name: str, version: str) -> None:
    found = registry.alias(name, CHAMPION)
    if found is None or found.version != version:
        raise FraudstreamError(
            f"the alias {CHAMPION} of {name} reads {found.version if found else 'nothing'} after it was set "
            f"to {version}: somebody else moves aliases in MLflow; repeat the command"
        )


def _event(
    name: str,
    order: Order,
    *,
    phase: str,
    expected: str | None,
    intent_offset: int | None = None,
) -> AuditEvent:
    return AuditEvent(
        event="promote",
        model_name=name,
        model_version=order.version,
        at_ms=order.now_ms,
        actor=order.actor,
        why=order.why,
        evidence={
            "phase": phase,
            "expected_champion": expected,
            "intent_offset": intent_offset,
            BY_SERVICE: order.by_service,
        },
    )
