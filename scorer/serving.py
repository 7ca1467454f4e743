"""The model that serves: taken over between two batches, scored with, and told of in the audit topic."""

import logging
from collections.abc import Sequence

import numpy as np

from fraudstream.clients.inference import Model
from fraudstream.core.errors import Refused
from fraudstream.core.scores import AuditEvent
from scorer.batch import Batch
from scorer.champion import Champion
from scorer.live_sets import AppliedSets, LiveSets
from scorer.poison import blaming, finite
from scorer.results import Emitted, Output, Timing, outputs_of, scores_of, swap_output

logger = logging.getLogger(__name__)


class Serving:
    """The present model, None before there is one; `fresh` is set until its first batch is committed."""

    def __init__(self, champion: Champion, live: LiveSets) -> None:
        self._champion = champion
        self._live = live
        self.model: Model | None = None
        self.fresh = False

    def begin(self) -> None:
        """Load the champion before anything is read.

        Raises:
            DependencyUnreachable: MLflow does not answer.
            Refused: the champion fails a check, and no other version serves.
        """
        self._champion.look(refuse=True)
        self.model = self._champion.take()
        if self.model is None:
            logger.info("no champion of %s yet: features are logged", self._champion.model_name)

    def take_over(self) -> None:
        """Between two batches: the waiting version, already proven, serves from here on."""
        if (model := self._champion.take()) is not None:
            self.model, self.fresh = model, True

    def committed(self) -> str | None:
        """Take note that a batch is committed; return the version of whose swap it told, None for none."""
        if self.model is None or not self.fresh:
            return None
        logger.info("serving version %s", self.model.version)
        self.fresh = False
        return self.model.version

    @property
    def feature_set(self) -> str:
        """The hash of the set whose features the model reads.

        Raises:
            Refused: it was retired meanwhile.
        """
        if self.model is None:
            return self._live.first
        wanted = self.model.contract.feature_set
        if wanted not in self._live.stores:
            raise Refused(
                f"version {self.model.version} serves on feature set {wanted}, which is live no more: "
                "fill it again with `fraudstream features fill`, or promote a version of a live set"
            )
        return wanted

    def score(self, applied: AppliedSets) -> np.ndarray | None:
        """Return float32 [N] probabilities, None without a model.

        Raises:
            Unscorable: the model fails, or says what is no probability.
        """
        if self.model is None:
            return None
        features = applied[self.feature_set].features
        with blaming("score"):
            return finite(self.model.score(features))

    def outputs(
        self,
        batch: Batch,
        applied: AppliedSets,
        probabilities: np.ndarray | None,
        *,
        timing: Timing,
        most_bytes: int,
    ) -> Emitted:
        """Return all that the batch sends out, the event of a swap if it is the first of a version.

        A dead letter takes at most `most_bytes`.
        """
        scores = scores_of(
            batch,
            applied,
            probabilities,
            model=self.model,
            feature_set=self.feature_set,
            timing=timing,
        )
        outputs = outputs_of(batch, scores, model=self.model, most_bytes=most_bytes)
        return Emitted(scores, [*outputs, *self._swaps(batch, timing.produced_at_ms)])

    def _swaps(self, batch: Batch, now_ms: int) -> Sequence[Output]:
        if self.model is None or not self.fresh:
            return ()
        event = AuditEvent(
            event="swap",
            model_name=self._champion.model_name,
            model_version=self.model.version,
            at_ms=now_ms,
            actor="scorer",
            why="the champion alias moved",
            evidence={
                "first_offsets": {str(p.partition): p.previous_offset + 1 for p in batch.parts}
            },
        )
        return (swap_output(self._champion.model_name, event),)
