"""The Faust worker: decode -> features -> score -> decide -> emit -> commit."""
