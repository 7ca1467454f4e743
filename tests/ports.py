"""Ports for servers of a test."""

import random

from fraudstream.stack.ports import HOST, RANGE, is_free


def free_port(adjacent: int = 1) -> int:
    """Return the first of so many adjacent ports without a listener, below those of outgoing connections."""
    for port in random.sample(RANGE, len(RANGE)):
        if all(is_free(port + i) for i in range(adjacent)):
            return port
    raise AssertionError(f"no {adjacent} adjacent ports are free on {HOST}")
