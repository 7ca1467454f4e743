"""fraudstream: a streaming fraud scorer that gives every transaction exactly one committed score."""

__version__ = "0.1.0"
