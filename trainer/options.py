"""What a training is asked for."""

import msgspec

from fraudstream.core.feature_set import FeatureSet


class TrainingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to train. `as_of_ms` None is the newest event time scored; `days` None is all mature history.

    `by_service`: nobody waits for this version, so it does not replace one that somebody went back to.
    """

    feature_set: FeatureSet
    actor: str
    days: int | None = None
    as_of_ms: int | None = None
    validation_share: float = 0.2
    seed: int = 0
    promote: bool = False
    by_service: bool = False
