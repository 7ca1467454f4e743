"""The transaction generator: parameters -> world -> ordinary -> fraud -> table (docs/generator.md)."""

from producer.generator.parameters import Parameters, make_parameters
from producer.generator.simulate import Simulation, generate, identity, simulate, source
from producer.generator.write import write_table

__all__ = [
    "Parameters",
    "Simulation",
    "generate",
    "identity",
    "make_parameters",
    "simulate",
    "source",
    "write_table",
]
