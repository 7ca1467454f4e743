"""The feature sets that come with the package, a TOML file each; `fraudstream features list` names them."""
