"""What a benchmark says of a server that had work and no core."""

import os
import sys
from pathlib import Path

import pytest

from verify.bench import rate


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread has waited")
def test_the_wait_for_a_core_is_what_the_kernel_tells() -> None:
    before_ns, told, after_ns = waited_ns(), rate.waited_s(os.getpid()), waited_ns()
    assert before_ns <= told * 1e9 <= after_ns + 1
    assert told > 0


def waited_ns() -> int:
    return int(Path(f"/proc/{os.getpid()}/schedstat").read_text().split()[1])


def test_where_the_system_is_silent_no_wait_is_told() -> None:
    assert rate.waited_s(-1) == 0.0
