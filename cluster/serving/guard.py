"""Ends what an actor leaves behind when it is killed.

A shard whose parent is gone may sit in a collective, on its GPU, for as long as the others do. A killed
actor cannot end it, and Ray does not, so a small process outside stands by.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys


def stand() -> None:
    """From here on, whatever this process starts ends with it, however it ends."""
    with contextlib.suppress(PermissionError):  # the leader of a session leads its group already
        os.setpgid(0, 0)
    argv = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    # In a session of its own: the guard is the one process that is to outlive the group.
    subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL)  # noqa: S603


def watch(leader: int) -> None:
    """Wait for the end of `leader`, then kill its process group."""
    # Not there any more, or not ours any more: the group is ended all the same.
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(leader)
        if os.getppid() == leader:
            select.select([ended], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
