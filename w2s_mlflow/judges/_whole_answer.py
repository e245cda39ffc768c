"""HTTP requests whose whole answer must arrive in time.

The timeout of `requests` holds for each read from the socket, so a server that sends single bytes can delay an answer without
end. Here a timer shuts the connection down when the time is over, whichever part of the answer is being read.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

LONGEST = 16 * 2**20
"""Maximum number of bytes of an answer, after decompression."""


class _Watch:
    """A timer of one request, which shuts its connection down when the time is over."""

    def __init__(self, timeout: float) -> None:
        self.expired = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout, self._expire)
        self._timer.daemon = True

    def connected(self, connection: socket.socket | None) -> None:
        """Remember the connection. Raises TimeoutError if the time is over already."""
        self._socket = connection
        if self.expired:
            raise TimeoutError

    def _expire(self) -> None:
        self.expired = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed in the meantime
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of an encrypted connection, too

    def __enter__(self) -> _Watch:
        _CURRENT.watch = self
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        _CURRENT.watch = None


class _Current(threading.local):
    """The timer of the request that this thread is making."""

    watch: _Watch | None = None


_CURRENT = _Current()


class _Connection(HTTPConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **options)
        if _CURRENT.watch:
            _CURRENT.watch.connected(self.sock)


class _SecureConnection(HTTPSConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **options)
        if _CURRENT.watch:
            _CURRENT.watch.connected(self.sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}


class Adapter(HTTPAdapter):
    """Adapter for the sessions that are passed to `post`."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Create the connection pools, whose connections tell the timer their socket."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        """Create the connection pools of a proxy."""
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = POOLS
        return manager


def post(session: requests.Session, url: str, body: Any, timeout: float) -> tuple[int, Mapping[str, str], bytes]:
    """Send a JSON value, and return the status, the headers and the content of the answer.

    Args:
        session: a session in which an `Adapter` is mounted.
        timeout: seconds within which the whole answer must arrive.

    Raises:
        requests.Timeout: the whole answer did not arrive in time.
        requests.RequestException: the server cannot be reached, or the answer is cut off or longer than LONGEST.
    """
    with _Watch(timeout) as watch:
        try:
            with session.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True) as reply:
                content = reply.raw.read(LONGEST + 1, decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if watch.expired or isinstance(error, urllib3.exceptions.TimeoutError):
                raise requests.Timeout(f"no whole answer within {timeout:g} seconds") from error
            raise error if isinstance(error, requests.RequestException) else requests.ConnectionError(error) from error
        if watch.expired:  # without a length in the headers, a cut-off answer looks like a whole one
            raise requests.Timeout(f"no whole answer within {timeout:g} seconds")
    if len(content) > LONGEST:
        raise requests.ConnectionError(f"the answer is longer than {LONGEST} bytes")
    return reply.status_code, reply.headers, content
