"""The end of the process after SIGTERM, whatever it is waiting for.

SIGTERM is handled like Ctrl-C, which saves a checkpoint. But Python runs signal handlers only between its own instructions, so
they wait while a database driver or another C library waits for a server. At exit, Python joins threads of other libraries.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from w2s_mlflow.distributed import launch

LIMIT = 4.8
"""Seconds from SIGTERM to the end of the process."""


def end_in_time(limit: float = LIMIT) -> None:
    """From now on, end this process at most `limit` seconds after SIGTERM. Call this from the main thread.

    A process that ends so leaves what a killed one leaves: its checkpoint, and its spool of what the server has not stored.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    # Python writes the number of each signal to this pipe as soon as it arrives, even while the main thread waits in C.
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    # The pipe of a forked process is its parent's, which must not end because its child gets a signal.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(read, limit), name="stopping", daemon=True).start()


def _watch(read: int, limit: float) -> None:
    while signal.SIGTERM not in os.read(read, 64):
        pass
    time.sleep(limit)
    message = f"w2s_mlflow: stopped {limit:g} s after SIGTERM; finished results are kept and will be reused"
    print(message, file=sys.stderr, flush=True)
    os._exit(launch.STOPPED)
