"""When drift begins and ends: a level to enter, a lower one to leave, each for some days in a row."""

import msgspec


class Levels(msgspec.Struct, frozen=True):
    """A PSI of `enter` or more on `days` compared days in a row is drift, until it is as long below `leave`.

    A day on which no version has `min_scores` says nothing and is left out: with 50 scores in ten bins
    chance alone gives a PSI of 0.2.

    Below 0.1 a population counts as stable, above 0.25 as changed (Siddiqi, 2006).
    """

    enter: float = 0.25
    leave: float = 0.1
    days: int = 2
    min_scores: int = 500


class Alarm(msgspec.Struct):
    """Whether something drifts, and for how many days in a row it looks as if that had changed."""

    drifts: bool = False
    against: int = 0

    def look(self, value: float, levels: Levels) -> bool:
        """Take the value of one more day; return whether drift has begun or ended with it."""
        changed = value < levels.leave if self.drifts else value >= levels.enter
        self.against = self.against + 1 if changed else 0
        if self.against < levels.days:
            return False
        self.drifts, self.against = not self.drifts, 0
        return True
