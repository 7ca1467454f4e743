"""Watches the registry's champion alias; a proven new version waits here until the hot path takes it."""

import logging
import threading

from fraudstream.clients.inference import Model, load_version
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import ModelVersion

logger = logging.getLogger(__name__)

CHAMPION = "champion"


class Champion:
    """The model to serve next. `look` runs beside the hot path, `take` between two of its batches."""

    def __init__(self, registry: ModelRegistry, model_name: str, feature_set: FeatureSet) -> None:
        self._registry = registry
        self._feature_set = feature_set
        self._lock = threading.Lock()
        self._next: Model | None = None
        self._known: tuple[str, float | None] | None = None
        self._unreachable = False
        self.model_name = model_name

    def look(self, *, refuse: bool = False) -> None:
        """Load the champion if version or threshold are others than when last looked at.

        A version that fails a check is refused once, loudly; the old one goes on serving. With `refuse`
        there is no old one, and to go on would be to score nothing and alert nobody.

        Raises:
            DependencyUnreachable: the registry does not answer.
            Refused: the version fails a check, and `refuse` is set.
        """
        with self._lock:
            version = self._registry.alias(self.model_name, CHAMPION)
            if version is None or (version.version, version.threshold) == self._known:
                return
            self._next = self._load(version, refuse=refuse)
            self._known = (version.version, version.threshold)

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
        if self._next is None:
            return None
        model, self._next = self._next, None
        return model

    def _load(self, version: ModelVersion, *, refuse: bool) -> Model | None:
        try:
            return load_version(self._registry, version, self._feature_set)
        except DependencyUnreachable:
            raise
        except FraudstreamError as exc:
            if refuse:
                raise
            logger.error("version %s is refused: %s", version.version, exc)  # noqa: TRY400
            return None
