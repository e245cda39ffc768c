"""Offline use of the Hugging Face hub.

Each process checks only once whether the hub responds: without a connection, the hub's client would retry each file for half a
minute.
"""

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
"""Names of proxy settings. If one of them is set, the hub is assumed to respond: the check would connect to the hub
directly, which may be blocked. `no_proxy` is not one of them, because it lists hosts to connect to without a proxy."""
TIMEOUT = 3.0
"""Connection timeout in seconds."""


@functools.cache
def detect_offline() -> None:
    """Switch the hub's client to offline mode if the hub does not respond. Call this before the hub is used."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or PROXIES & urllib.request.getproxies().keys() or _answers(constants.ENDPOINT):
        return
    LOG.info("%s does not respond: only files in the local cache are available", constants.ENDPOINT)
    os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes, and for `datasets`, which reads it when imported
    constants.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars and the loading reports of transformers.

    The progress bars would interrupt our own progress line. The reports are not needed, because this package checks the loaded
    weights itself.
    """
    from transformers.utils import logging as transformers_logging

    progress_bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if progress_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _answers(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port or 443), TIMEOUT).close()
    except OSError:
        return False
    return True
