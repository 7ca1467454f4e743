"""Watches the registry's champion alias; a proven new version waits here until the hot path takes it."""

import logging
import threading
from collections import deque

from fraudstream.clients.inference import Model, load_live_version
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.environment_sets import EnvironmentSets
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError
from fraudstream.core.model import ModelVersion

logger = logging.getLogger(__name__)

CHAMPION = "champion"


class Champion:
    """The model to serve next. `look` runs beside the hot path, `take` between two of its batches."""

    def __init__(self, registry: ModelRegistry, model_name: str, sets: EnvironmentSets) -> None:
        self._registry = registry
        self._sets = sets
        self._refused_under: EnvironmentSets | None = None
        """The sets with which the known version was refused."""
        self._lock = threading.Lock()
        self._next: deque[Model] = deque(maxlen=1)
        """What waits to be served; put and taken in one step each, since `take` does not wait for `look`."""
        self._known: tuple[str, float | None] | None = None
        self._unreachable = False
        self.model_name = model_name

    def follow(self, sets: EnvironmentSets) -> None:
        """Take note of the environment's sets, of which the live ones hold all that is committed."""
        self._sets = sets

    def look(self, *, refuse: bool = False) -> None:
        """Load the champion if version or threshold are others than when last looked at.

        A version that fails a check is refused once for each change of the live sets, loudly; the old one
        goes on serving. With `refuse`
        there is no old one, and to go on would be to score nothing and alert nobody.

        Raises:
            DependencyUnreachable: the registry does not answer.
            Refused: the version fails a check, and `refuse` is set.
        """
        with self._lock:
            sets = self._sets
            version = self._registry.alias(self.model_name, CHAMPION)
            if version is None or self._is_known(version, sets):
                return
            model = self._load(version, sets, refuse=refuse)
            self._next.clear()
            if model is not None:
                self._next.append(model)
            self._known = (version.version, version.threshold)
            self._refused_under = sets if model is None else None

    def _is_known(self, version: ModelVersion, sets: EnvironmentSets) -> bool:
        changed = self._refused_under is not None and self._refused_under is not sets
        return not changed and (version.version, version.threshold) == self._known

    def look_again(self) -> None:
        """Look, and bear with a registry that is away: what serves goes on serving."""
        try:
            self.look()
        except DependencyUnreachable as exc:
            if not self._unreachable:
                logger.warning("%s; the present model goes on serving", exc)
            self._unreachable = True
        else:
            self._unreachable = False

    def take(self) -> Model | None:
        """Return a model that waits to be served, once."""
        try:
            return self._next.pop()
        except IndexError:
            return None

    def _load(self, version: ModelVersion, sets: EnvironmentSets, *, refuse: bool) -> Model | None:
        try:
            return load_live_version(self._registry, version, sets)
        except DependencyUnreachable:
            raise
        except FraudstreamError as exc:
            if refuse:
                raise
            logger.error("version %s is refused: %s", version.version, exc)  # noqa: TRY400
            return None
