"""Pauses between the attempts of a request to a server."""

from __future__ import annotations

import math
import secrets
import threading
from concurrent.futures import CancelledError

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

BACKOFF, JITTER, MAX_WAIT = 1.0, 1.0, 60.0
"""Parameters of the waits before retries, in seconds.

The first retry is sent at once. Before retry n > 1, the client waits BACKOFF * 2^(n - 1) plus a random time of up to JITTER.
No wait exceeds MAX_WAIT, even if the server's Retry-After header requests a longer one.
"""


def seconds(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait after an attempt, counted from 0, that failed.

    Args:
        retry_after: the server's Retry-After header (seconds or a date), which replaces the formula of BACKOFF.
    """
    try:
        requested = Retry().parse_retry_after(retry_after) if retry_after else None
    except (InvalidHeader, ValueError, OverflowError):
        requested = None
    if requested is not None and math.isfinite(requested):
        return min(requested, MAX_WAIT)
    jitter = JITTER * secrets.randbelow(1000) / 1000  # not from a stream: no result depends on it
    return 0.0 if attempt == 0 else min(BACKOFF * 2**attempt + jitter, MAX_WAIT)


def sleep(stopped: threading.Event, duration: float) -> None:
    """Wait. Raises CancelledError as soon as `stopped` is set."""
    if stopped.wait(duration):
        raise CancelledError
