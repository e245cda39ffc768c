"""SIGTERM ends the process in time, also while the main thread waits in C and its handler cannot run."""

from __future__ import annotations

import signal
import subprocess
import sys

WAITING = """
import ctypes, signal
from w2s_mlflow.cli import stopping
signal.signal(signal.SIGTERM, lambda *_: None)
stopping.end_in_time(0.05)
print("ready", flush=True)
libc = ctypes.CDLL(None)
while True:
    libc.sleep(100)
"""


def test_sigterm_ends_a_process_that_waits_in_c() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == "w2s_mlflow: stopped 0.05 s after SIGTERM; finished results are kept and will be reused\n"
