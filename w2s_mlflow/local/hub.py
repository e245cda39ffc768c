"""The Hugging Face hub without a network: its client tries for half a minute; we look once and then ask its cache alone."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

LOG = logging.getLogger("w2s_mlflow")
PROXIES = {"http", "https", "all"}
"""What a proxy may be for; `no_proxy`, which names whom to reach without one, is none."""
TIMEOUT = 3.0
"""Seconds that a machine which answers may take."""


@functools.cache
def detect_offline() -> None:
    """Before the first use of the hub: where it does not answer, its client is told to be offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or PROXIES & urllib.request.getproxies().keys() or _answers(constants.ENDPOINT):
        return
    LOG.info("%s does not answer: only what is in its cache can be had", constants.ENDPOINT)
    os.environ["HF_HUB_OFFLINE"] = "1"  # for `datasets`, which reads it when it is imported, and for child processes
    constants.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the progress bars of transformers, which would tear our own, and its reports on weights, which we read."""
    from transformers.utils import logging as theirs

    shown, level = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    theirs.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if shown:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def _answers(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port or 443), TIMEOUT).close()
    except OSError:
        return False
    return True
