"""Replaces itself by a server that dies with its supervisor; run as a script, without imports of ours.

`python child.py SUPERVISOR_PID COMMAND...`: Linux sends SIGKILL when the thread that forked us ends, which
is the supervisor's main thread. Elsewhere the supervisor's guard does it alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, check that the supervisor still lives, become the server."""
    supervisor = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        sys.exit("the supervisor is gone")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
