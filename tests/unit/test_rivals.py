"""What the pipeline benchmark says of its peers: how many times as fast, and which are too slow to count."""

from pathlib import Path

import pytest

from fraudstream.core.errors import FraudstreamError, SettingsError
from verify.bench import rivals
from verify.bench.pipeline import ratios
from verify.bench.rate import Rate
from verify.bench.rivals import Rival, ready, require_fast

PEERS = (
    Rival("faust_agent", "faust_agent", "python", 1_350, needs_redis=True),
    Rival("quix_streams", "quix_streams", "python", 3_100),
)


def rate(tx_per_s: int) -> Rate:
    return Rate(10_000, tx_per_s, 1.0, 0.1, 0.1, 0.0)


def test_the_ratio_says_how_many_times_as_fast_the_product_is() -> None:
    found = ratios(rate(30_000), {"faust_agent": rate(1_500), "quix_streams": None})
    assert found == {"faust_agent": 20.0, "quix_streams": None}


def test_peers_at_four_fifths_of_their_usual_rate_will_do() -> None:
    require_fast(PEERS, {"faust_agent": rate(1_080), "quix_streams": rate(2_480)})


def test_a_peer_that_was_not_measured_is_not_too_slow() -> None:
    require_fast((), {"faust_agent": None, "quix_streams": None})


def test_a_slow_peer_is_an_error_that_names_it_its_rate_and_the_least() -> None:
    with pytest.raises(FraudstreamError, match=r"quix_streams 2,479 .* at least 2,480") as error:
        require_fast(PEERS, {"faust_agent": rate(1_080), "quix_streams": rate(2_479)})
    assert error.value.exit_code == 1
    assert "faust_agent" not in str(error.value)


def test_without_a_checkout_the_error_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "SCRIPTS", tmp_path)
    with pytest.raises(SettingsError, match="--no-peers"):
        ready(lambda _: None)
