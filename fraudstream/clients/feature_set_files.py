"""A feature set by its name (those of the package) or by the path of its file."""

from pathlib import Path

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_set import FeatureSet, packaged, parse


def load_feature_set(name: str) -> FeatureSet:
    """Return the packaged set of that name, or the one in the file at that path.

    Raises:
        SettingsError: there is neither, or the file is no feature set: field, value, what is allowed.
    """
    known = packaged()
    if name in known:
        return known[name]
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        reason = "is not UTF-8" if isinstance(exc, UnicodeDecodeError) else "cannot be read"
        raise SettingsError(
            f"feature set {name!r} {reason}: give a name ({', '.join(known)}) or the path of a TOML file"
        ) from exc
    return parse(text, name, path.stem)
