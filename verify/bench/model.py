"""A model for the benchmarks: 150 trees on served features, alerts for 5 of 1,000."""

import numpy as np

from fraudstream.clients.clock import now_ms
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import CARD_METRICS, Contract, DataWindow, FloatArray, usual_values
from fraudstream.core.reference import reference_of
from fraudstream.core.settings import Settings
from trainer.export import Exported, convert, golden_rows, seal
from trainer.fit import fit
from trainer.promote import Order, promote
from trainer.publish import publish

TREES, ALERTS = 150, 0.005


def bench_model(features: FloatArray) -> Exported:
    """Return a sealed model of 150 trees for `features` float32 [N, 9] of the nine; labels are made up."""
    random = np.random.default_rng(3)
    risk = features[:, 1] * (1 + features[:, 5]) + random.lognormal(0, 1, len(features))
    labels = risk > np.quantile(risk, 0.98)
    fitted = fit(features, labels, seed=0, trees=TREES)
    scores = fitted.probabilities(features).astype(np.float32)
    usual, spread = usual_values(features[~labels])
    now = now_ms()
    rows, frauds = len(features), int(labels.sum())
    window = DataWindow(
        from_ms=now,
        split_ms=now,
        to_ms=now,
        as_of_ms=now,
        fit_rows=rows,
        fit_frauds=frauds,
        validation_rows=rows,
        validation_frauds=frauds,
    )
    contract = Contract(
        feature_set=NINE.hash,
        features=NINE.features,
        threshold=float(np.quantile(scores, 1 - ALERTS)),
        golden_inputs=golden_rows(features, scores).tolist(),
        golden_outputs=[],
        usual=usual.tolist(),
        spread=spread.tolist(),
        window=window,
        metrics=dict.fromkeys(CARD_METRICS, 0.5),
        created_at_ms=now,
        reference=reference_of(scores, features, NINE.features),
    )
    return seal(convert(fitted), contract)


def serve(settings: Settings, exported: Exported) -> None:
    """Publish the model and make it champion.

    Raises:
        DependencyUnreachable: MLflow or Kafka does not answer.
        FraudstreamError: the registry does not take it.
    """
    version = publish(settings, exported, {"trees": str(TREES)})
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    order = Order(version=version, actor="bench", why="benchmark", now_ms=now_ms())
    promote(settings, registry, order, feature_set=NINE)
