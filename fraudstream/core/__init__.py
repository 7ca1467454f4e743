"""What every process shares, pure: no I/O, no clock, no environment."""
