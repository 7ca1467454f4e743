"""Packages that an installation may lack: the image of the services has none that only training needs."""

from collections.abc import Iterable
from importlib.util import find_spec

from fraudstream.core.errors import NotInstalled

TRAINING = ("sklearn", "skl2onnx", "mlflow")
"""What a training imports only when it comes to its use, which may be minutes after its start."""
PACKAGES = {
    "sklearn": "scikit-learn",
    **{name: name for name in ("skl2onnx", "onnx", "threadpoolctl", "mlflow", "psutil", "jgo")},
}
"""Modules that the product imports and the image of the services lacks, by the name of their package."""


def check_installed(*modules: str) -> None:
    """Look for the modules, without importing them.

    Raises:
        NotInstalled: some are not there.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        raise _lacks(missing)


def not_installed(exc: ModuleNotFoundError) -> NotInstalled | None:
    """Return what to say of a failed import; None where it is a defect, as no installation may lack that."""
    name = (exc.name or "").partition(".")[0]
    return _lacks([name]) if name in PACKAGES else None


def _lacks(modules: Iterable[str]) -> NotInstalled:
    return NotInstalled(
        f"this command needs {', '.join(PACKAGES.get(each, each) for each in modules)}, which this "
        "installation lacks: in containers run it in the trainer's (`docker compose exec trainer fraudstream "
        "...`), elsewhere install all of requirements.lock"
    )
