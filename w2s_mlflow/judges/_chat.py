"""Client for servers with OpenAI's chat completions protocol: retries failed requests and caches paid answers.

Answers are cached in the scratch directory under the sha256 of the request (address, model, messages, settings), so an
answered request is not sent again. Cache files are written atomically. The API key is read from the environment and sent in a
request header; it is never written to a file, a log or an error message.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.util import Retry

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.records import canonical_json

KEY = "W2S_ENDPOINT_KEY"
"""Environment variable that holds the API key; a local server may need no key."""
FOLDER = "endpoint"
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
"""HTTP status codes after which a request is retried."""
BACKOFF, JITTER, MAX_WAIT = 1.0, 1.0, 60.0
"""Parameters of the waits before retries, in seconds.

The first retry is sent at once. Before retry n > 1, the client waits BACKOFF * 2^(n - 1) plus a random time of up to JITTER.
No wait exceeds MAX_WAIT, even if the server's Retry-After header requests a longer one.
"""
CACHED = "completed answers are cached, so run the same command again"

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """Text of one answer, and its cost: the number of tokens of prompt and answer."""

    text: str
    tokens: int


class Chat:
    """Client through which one judge sends requests to one server."""

    def __init__(self, url: str, retries: int, timeout: float, concurrency: int) -> None:
        """Store the settings; no request is sent yet.

        Args:
            url: full URL of the endpoint, `.../chat/completions`.
            timeout: seconds per attempt.
        """
        self.url, self.retries, self.timeout, self.concurrency = url, retries, timeout, concurrency
        self._charged: set[str] = set()

    def answers(self, bodies: Sequence[Body]) -> list[Answer]:
        """Send requests, at most `concurrency` at a time, and return their answers in the order of `bodies`.

        Identical requests are sent once; the first is charged and the others cost 0. An answer cached by another run is
        charged at its original cost, so a resumed run reports the same cost as an uninterrupted one.

        Raises:
            ConfigError: a request failed. Requests in flight are completed first, and their answers cached.
        """
        waiting = {self._key(body): body for body in bodies}
        stopped = threading.Event()
        with self._session(stopped) as session, ThreadPoolExecutor(self.concurrency) as workers:
            futures = {key: workers.submit(self._answer, session, key, body, stopped) for key, body in waiting.items()}
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
            finally:  # after a failure or Ctrl-C, cancel the requests that have not been sent yet
                stopped.set()
        errors = [
            error for future in futures.values() if (error := future.exception()) and not isinstance(error, CancelledError)
        ]
        if errors:
            raise errors[0]
        answer_by_key = {key: future.result() for key, future in futures.items()}
        return [self._charge(key, answer_by_key[key]) for key in map(self._key, bodies)]

    def _charge(self, key: str, answer: Answer) -> Answer:
        tokens = 0 if key in self._charged else answer.tokens
        self._charged.add(key)
        return Answer(answer.text, tokens)

    def _answer(self, session: requests.Session, key: str, body: Body, stopped: threading.Event) -> Answer:
        if stopped.is_set():  # do not send this request, because another one failed; `answers` raises that error
            raise CancelledError
        file = scratch.cache_path(FOLDER) / key[:2] / f"{key}.json"
        request = {"url": self.url, "body": body}
        if (answer := _read(file, request)) is None:
            try:
                answer = self._ask(session, body)
            except ConfigError:
                stopped.set()
                raise
            _write(file, {**request, "text": answer.text, "tokens": answer.tokens})
        return answer

    def _ask(self, session: requests.Session, body: Body) -> Answer:
        try:
            reply = session.post(self.url, json=body, timeout=self.timeout, allow_redirects=False)
        except requests.RequestException as error:
            raise self._unreachable_error(error) from None
        if reply.status_code != requests.codes.ok:
            raise self._status_error(reply, str(body["model"]))
        return self._content(reply)

    def _content(self, reply: requests.Response) -> Answer:
        """Return the text of the first choice, and its cost in tokens (0 if the server does not report it)."""
        try:
            content = reply.json()
            # The last field is null if the model used up all tokens for reasoning.
            text = content["choices"][0]["message"]["content"] or ""
            cost = int((content.get("usage") or {}).get("total_tokens") or 0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            text, cost = None, 0
        if not isinstance(text, str):
            raise ConfigError(f"{self._name()} returned a response that is not in OpenAI's chat completions format; {CACHED}")
        return Answer(text, cost)

    def _key(self, body: Body) -> str:
        return hashlib.sha256(canonical_json({"url": self.url, "body": body}).encode()).hexdigest()

    def _session(self, stopped: threading.Event) -> requests.Session:
        session = requests.Session()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # store no cookies, as threads share the session
        session.auth = _authorized  # without this, the library `requests` would send passwords from ~/.netrc
        waits = _interruptible(stopped)(
            self.retries,
            allowed_methods=None,
            status_forcelist=RETRY_STATUS,
            raise_on_status=False,
            backoff_factor=BACKOFF,
            backoff_jitter=JITTER,
            backoff_max=MAX_WAIT,
            retry_after_max=int(MAX_WAIT),
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=waits, pool_maxsize=self.concurrency))
        return session

    # --- error messages of failed requests ---

    def _name(self) -> str:
        return f"the judge's endpoint {self.url}"

    def _unreachable_error(self, error: requests.RequestException) -> ConfigError:
        timed_out = isinstance(error, requests.Timeout) or "timed out" in str(error)
        problem = (
            f"did not respond within timeout={self.timeout:g} seconds" if timed_out else f"cannot be reached: {_reason(error)}"
        )
        return ConfigError(f"{self._name()} {problem}, after {self.retries} retries; check endpoint=URL; {CACHED}")

    def _status_error(self, reply: requests.Response, model: str) -> ConfigError:
        status = reply.status_code
        if status in (401, 403):
            problem = f"rejected the key in {KEY}" if os.environ.get(KEY) else f"requires a key: set {KEY}"
            return ConfigError(f"{self._name()} {problem} (status {status}); {CACHED}")
        if status == 404:
            return ConfigError(
                f"{self._name()} has no endpoint_model={model}, or the address does not exist{_server_message(reply)}; {CACHED}"
            )
        if status == 429:
            advice = f"after {self.retries} retries; wait, or lower concurrency={self.concurrency}"
            return ConfigError(f"{self._name()} still limits the request rate {advice}; {CACHED}")
        attempts = f" after {self.retries} retries" if status in RETRY_STATUS else ""
        return ConfigError(f"{self._name()} failed with status {status}{attempts}{_server_message(reply)}; {CACHED}")


def _interruptible(stopped: threading.Event) -> type[Retry]:
    """Return a subclass of urllib3's `Retry` that stops waiting and cancels the request once `stopped` is set."""

    class Waits(Retry):
        def sleep(self, response: BaseHTTPResponse | None = None) -> None:
            retry_after = self.get_retry_after(response) if response is not None else None
            if stopped.wait(self.get_backoff_time() if retry_after is None else retry_after):
                raise CancelledError

    return Waits


def _authorized(request: requests.PreparedRequest) -> requests.PreparedRequest:
    if key := os.environ.get(KEY, "").strip():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _reason(error: requests.RequestException) -> str:
    """Return the message of the underlying network error, without the text that requests and urllib3 wrap around it."""
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    text = str(reason).splitlines()[0] if str(reason) else type(error).__name__
    return _without_key(text.rpartition("object at 0x")[2].partition(": ")[2] or text)


def _server_message(reply: requests.Response) -> str:
    """Return ": " and the error message in the field `error` (OpenAI) or `detail` (FastAPI); "" if there is no message."""
    try:
        content = reply.json()
        message = content.get("error") or content["detail"]
        message = message["message"] if isinstance(message, dict) else message
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {_without_key(' '.join(str(message).split()))[:200]}"


def _without_key(text: str) -> str:
    key = os.environ.get(KEY, "").strip()
    return text.replace(key, "***") if key else text


# --- cached answers ---------------------------------------------------------------------------------------------------


def _read(file: Path, request: Mapping[str, Any]) -> Answer | None:
    """Return the cached answer; None if the file is missing, is corrupt or holds the answer to a different request."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if {name: content[name] for name in request} == request:
            return Answer(str(content["text"]), int(content["tokens"]))
    return None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with scratch.replacing(file) as partial:
        partial.write_text(canonical_json(content), encoding="utf-8")


# --- endpoint address -------------------------------------------------------------------------------------------------


def address(url: str) -> str:
    """Return the chat completions URL of a server, given as `http://host`, `http://host/v1` or the full URL.

    Raises:
        ValueError: the URL is invalid, or it contains a user, password or query, which would be recorded in runs.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.query:
        raise ValueError
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"
