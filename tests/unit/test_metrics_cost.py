"""The benchmark of counting judges every batch size that it measures, and says which are within the bound."""

import pytest

from benchmarks.metrics_cost import MOST_US, SIZES, Cost, report_of


def costs(*counting_us: float) -> list[Cost]:
    return [
        Cost(size, each, round(each * size, 2), 0.8)
        for size, each in zip(SIZES, counting_us, strict=True)
    ]


def test_small_batches_are_measured_too() -> None:
    assert min(SIZES) <= 20


def test_the_bound_holds_only_if_it_holds_for_every_size() -> None:
    assert report_of(costs(0.1, 0.3, MOST_US)).holds
    assert not report_of(costs(0.1, 0.3, MOST_US + 0.01)).holds


@pytest.mark.parametrize(
    ("counting_us", "sentence"),
    [
        ((0.1, 0.3, 0.4), "within 0.5 us a transaction: batches of 1000, 100, 20"),
        ((0.1, 0.3, 1.3), "within 0.5 us a transaction: batches of 1000, 100; above it: 20"),
        ((0.6, 0.7, 1.3), "within 0.5 us a transaction: none; above it: 1000, 100, 20"),
    ],
)
def test_the_sizes_within_the_bound_are_said(counting_us: tuple[float, ...], sentence: str) -> None:
    assert report_of(costs(*counting_us)).sentence() == sentence
