"""The scenarios of the demo as data: what is generated, what happens on stage, when it ends."""

import msgspec

from fraudstream.core.errors import SettingsError

HISTORY_DAYS = 35
TRAINING_DAYS = 22
"""Newest mature days to learn from: in its first days the stream has no known terminals yet."""

VALIDATION_SHARE = 0.1
"""Of a retraining: the two newest days. What is new must be among what is learned from."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario. Days count from the stream's first; `rate` in live transactions/s.

    `new_fraud_day`: a behaviour sets in that no model has seen. `wave_day`: a mass of known fraud on one
    day. `after_days`: the stream ends so many days after the swap to a retrained model.
    """

    name: str
    what: str
    days: int
    rate: int
    new_fraud_day: int | None = None
    wave_day: int | None = None
    outage: bool = False
    after_days: int | None = None

    @property
    def generated(self) -> tuple[str, ...]:
        """Return the options of `generate` that make its stream."""
        options = ["--days", str(self.days)]
        if self.new_fraud_day is not None:
            options += ["--shells-from-day", str(self.new_fraud_day)]
        if self.wave_day is not None:
            options += ["--wave-day", str(self.wave_day)]
        return tuple(options)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="drift",
            what="a new kind of fraud appears; recall falls, a retrained model brings it back",
            days=75,
            rate=1_100,
            new_fraud_day=40,
            after_days=8,
        ),
        Scenario(name="quiet", what="the usual traffic, one model", days=44, rate=700),
        Scenario(
            name="attack",
            what="one day, hundreds of cards are emptied at once",
            days=44,
            rate=700,
            wave_day=39,
        ),
        Scenario(
            name="outage",
            what="a worker and Redis are killed on stage; nothing is lost, nothing doubled",
            days=44,
            rate=700,
            outage=True,
        ),
    )
}


def check_data(scenario: Scenario) -> None:
    """Check that a scenario can be told on a file of the user's.

    Raises:
        SettingsError: it needs fraud that only the generator makes.
    """
    if scenario.new_fraud_day is not None or scenario.wave_day is not None:
        raise SettingsError(
            f"--scenario {scenario.name} adds fraud to generated data: leave --data out, or choose "
            "--scenario quiet or outage"
        )
