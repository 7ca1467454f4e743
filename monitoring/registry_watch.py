"""Whether MLflow answers, asked beside the monitor's loop: one that hangs does not hold it up."""

import logging
import threading

from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings

logger = logging.getLogger(__name__)

REGISTRY_S = 5.0
"""MLflow is asked so often; one that hangs, so long after the question was given up."""


class RegistryWatch:
    """Asks for the champion again and again, in a thread that nobody waits for: it ends with the process."""

    def __init__(self, settings: Settings) -> None:
        self._name = model_name(settings.environment)
        self._registry = ModelRegistry(
            settings.mlflow_url,
            connect_timeout_ms=settings.request_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
        )
        self._away = False
        self.why: str | None = f"MLflow at {settings.mlflow_url} has not answered yet"
        """Why MLflow cannot be used now, None once it answers; may be read from another thread."""

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name="registry-watch", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self.ask()
            pause.wait(REGISTRY_S)

    def ask(self) -> None:
        """Ask once, which takes up to twice `request_timeout_ms` where MLflow hangs; log what has changed."""
        try:
            self._registry.alias(self._name, CHAMPION)
        except FraudstreamError as exc:
            if not self._away:
                logger.warning("%s; asked again every %.0f s", exc, REGISTRY_S)
            self._away, self.why = True, str(exc)
        else:
            if self._away:
                logger.info("MLflow answers again")
            self._away, self.why = False, None
