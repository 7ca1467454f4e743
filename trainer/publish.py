"""Hop 6 of training: the file goes into MLflow as a new version, complete from its first moment on.

The version is created last and with all its tags in the one request, so that a trainer killed
anywhere leaves no version or a whole one (at worst a run without a version).
"""

import datetime
import logging
import os
from typing import TYPE_CHECKING

import msgspec
import onnx

from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.model import Contract, model_name
from fraudstream.core.settings import Settings
from trainer.export import Exported

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

_REQUIREMENTS = ("numpy", "onnxruntime")
_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def publish(settings: Settings, exported: Exported, parameters: dict[str, str]) -> str:
    """Register the file as a new version of the environment's model and return the version's number.

    `parameters` describe how it was trained. No alias is moved.

    Raises:
        DependencyUnreachable: MLflow does not answer, or does not take the version.
    """
    # Set, not read: MLflow takes these from the environment at its import.
    os.environ.update(_MLFLOW_SETTINGS)  # noqa: TID251
    import mlflow  # noqa: PLC0415 - 4 s of import that only this step should pay

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        mlflow.set_tracking_uri(settings.mlflow_url)
        mlflow.set_experiment(model_name(settings.environment))
        with mlflow.start_run():
            mlflow.log_params(parameters)
            mlflow.log_metrics(exported.contract.metrics)
            info = _log_file(exported)
        return _create_version(info, model_name(settings.environment), exported)
    except mlflow.exceptions.MlflowException as exc:
        raise DependencyUnreachable(
            f"MLflow at {settings.mlflow_url} did not take the new version ({exc}): "
            "look at the server's log, then train again"
        ) from exc


def version_tags(exported: Exported) -> dict[str, str]:
    """Return what the registry says of a version without its file being opened."""
    contract = exported.contract
    return {
        "sha256": exported.sha256,
        "feature_set": contract.feature_set,
        "threshold": repr(contract.threshold),
        "average_precision": repr(contract.metrics["average_precision"]),
        "data_window": msgspec.json.encode(contract.window).decode(),
    }


def model_card(contract: Contract) -> str:
    """Return the model card in Markdown: what it is for, what it learned from, what it is worth."""
    window, metrics = contract.window, contract.metrics
    return f"""# Card fraud score

**Use.** Probability that a card transaction is fraud, from {len(contract.features)} features known at its
event time (feature set `{contract.feature_set}`). An alert from {contract.threshold:.4f} on.
It ranks transactions for analysts; it is not made to decline cards unseen.

**Data.** {window.fit_rows:,} transactions ({window.fit_frauds:,} frauds) from {_day(window.from_ms)} to
{_day(window.split_ms)} to learn, {window.validation_rows:,} ({window.validation_frauds:,} frauds) up to
{_day(window.to_ms)} to validate; after that, all of them to learn what is published. Labels as known at
{_day(window.as_of_ms)}; a transaction never reported counts as genuine.

**Quality on the later, unseen part.** Average precision {metrics["average_precision"]:.3f}
(95 % interval {metrics["average_precision_low"]:.3f} to {metrics["average_precision_high"]:.3f}, chance
{metrics["chance"]:.4f}), area under ROC {metrics["roc_auc"]:.3f}, card precision@100
{metrics["card_precision_100"]:.3f}. At the threshold {metrics["alerts_per_1000"]:.1f} alerts per 1,000,
{metrics["alert_precision"]:.0%} of them fraud, {metrics["alert_recall"]:.0%} of the frauds found.

**Limits.** Fraud that nobody reported teaches the model that it is genuine. Customers and terminals
without history get the prior of the feature set.
"""


def _log_file(exported: Exported) -> "ModelInfo":
    import mlflow.onnx  # noqa: PLC0415

    info: ModelInfo = mlflow.onnx.log_model(
        onnx.load_from_string(exported.onnx_bytes),
        name="model",
        pip_requirements=list(_REQUIREMENTS),
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    return info


def _create_version(info: "ModelInfo", name: str, exported: Exported) -> str:
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        name,
        source=info.model_uri,
        run_id=info.run_id,
        model_id=info.model_id,
        tags=version_tags(exported),
        description=model_card(exported.contract),
    )
    return str(created.version)


def _day(event_time_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(event_time_ms / 1000, datetime.UTC):%Y-%m-%d}"
