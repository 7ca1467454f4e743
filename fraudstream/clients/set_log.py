"""The feature sets of an environment, read from and written to its audit log.

The log is the truth, as it is for the features themselves: what Redis loses can be made from it again.
"""

import threading

import msgspec

from fraudstream.clients import audit_log
from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_set_files import load_feature_set
from fraudstream.core.environment_sets import (
    EnvironmentSets,
    Phase,
    change_of,
    read_change,
)
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.feature_kinds import FeatureSet
from fraudstream.core.model import model_name
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings

_PAUSE_S = 0.02


def find_set(settings: Settings, name: str | None = None) -> FeatureSet:
    """Return the environment's set of that name or hash, or else the packaged set or file of that name.

    Without a name: the set that went live first; in a new environment, that of the setting `feature_set`.

    Raises:
        SettingsError: there is none.
        DependencyUnreachable: no broker answers.
    """
    sets = SetLog(settings).refresh()
    if name is None:
        return next(iter(sets.live.values()), None) or load_feature_set(settings.feature_set)
    return sets.named(name) or load_feature_set(name)


class SetLog:
    """The sets as far as the log was read, `sets`; one for each process. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offset = -1
        self._pause = threading.Event()
        self.sets = EnvironmentSets()

    def refresh(self) -> EnvironmentSets:
        """Read on to the end of the log.

        Raises:
            DependencyUnreachable: no broker answers.
            Refused: a set of a newer program stands there.
        """
        for offset, event in audit_log.read_after(self._settings, self._offset):
            if event.event == "feature_set":
                self.sets = self.sets.after(read_change(event.evidence))
            self._offset = offset
        return self.sets

    def begin(self, actor: str) -> EnvironmentSets:
        """Read the sets; in a new environment let that of the setting `feature_set` be live.

        Raises:
            SettingsError: the setting names no feature set.
            DependencyUnreachable: no broker answers.
        """
        first = load_feature_set(self._settings.feature_set)
        if not self.refresh().live:
            self.append("begin", first, actor=actor, why="the setting feature_set")
        return self.sets

    def append(
        self, phase: Phase, feature_set: FeatureSet, *, actor: str, why: str
    ) -> EnvironmentSets:
        """Write a change and wait until every reader of the log must see it.

        A Kafka transaction of a scorer that is open hides what comes after its records.

        Raises:
            DependencyUnreachable: no broker confirms, or shows it, within `connect_timeout_ms`.
        """
        event = AuditEvent(
            event="feature_set",
            model_name=model_name(self._settings.environment),
            model_version="",
            at_ms=now_ms(),
            actor=actor,
            why=why,
            evidence=msgspec.to_builtins(change_of(phase, feature_set)),
        )
        offset = audit_log.append(self._settings, event)
        deadline_s = monotonic_s() + self._settings.connect_timeout_ms / 1000
        while self._offset < offset:
            self.refresh()
            if self._offset < offset and monotonic_s() > deadline_s:
                raise KafkaUnreachable(
                    f"the audit log of {self._settings.environment} does not show offset {offset}: a "
                    "scorer's transaction stays open; look with `fraudstream stack logs`"
                )
            self._pause.wait(_PAUSE_S)
        return self.sets
