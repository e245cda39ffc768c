"""The Hugging Face hub without a network: its client tries for half a minute; we look once and then ask its cache alone."""

from __future__ import annotations

import functools
import logging
import os
import socket
import urllib.request
from urllib.parse import urlsplit

LOG = logging.getLogger("w2s_mlflow")
TIMEOUT = 3.0
"""Seconds that a machine which answers may take."""


@functools.cache
def look() -> None:
    """Before the first use of the hub: where it does not answer, its client is told to be offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies() or _answers(constants.ENDPOINT):
        return
    LOG.info("%s does not answer: only what is in its cache can be had", constants.ENDPOINT)
    os.environ["HF_HUB_OFFLINE"] = "1"  # for `datasets`, which reads it when it is imported, and for child processes
    constants.HF_HUB_OFFLINE = True


def _answers(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port or 443), TIMEOUT).close()
    except OSError:
        return False
    return True
