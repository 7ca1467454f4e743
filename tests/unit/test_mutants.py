"""Every mutant of the library can be made: what it replaces stands in the source as it is now."""

from itertools import chain

import pytest

from fraudstream.clients.feature_library import library_source
from tests import changed_command
from tests.feature_set_samples import EVERYTHING
from tests.integration import test_feature_answers, test_feature_sets
from tests.window_cases import KINDS

SOURCES = library_source(EVERYTHING) + library_source(KINDS)
MUTANTS = dict(
    chain.from_iterable(
        each.items()
        for each in (
            changed_command.LIBRARY,
            test_feature_answers.MUTANTS,
            test_feature_sets.MUTANTS,
            test_feature_sets.PART_MUTANTS,
        )
    )
)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_a_mutant_replaces_stands_in_the_library(mutant: str) -> None:
    old, new = MUTANTS[mutant]
    assert old in SOURCES
    assert old != new
