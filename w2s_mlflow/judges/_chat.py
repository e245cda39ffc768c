"""Client for servers with OpenAI's chat completions protocol: retries failed requests and caches paid answers.

Answers are cached in the scratch directory under the sha256 of the request (address, model, messages, settings), so an
answered request is not sent again. Cache files are written atomically. The API key is read from the environment and sent in a
request header; it is never written to a file, a log or an error message.
"""

from __future__ import annotations

import hashlib
import itertools
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

from w2s_mlflow.display import printable
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import _pause as pause
from w2s_mlflow.judges import _whole_answer as whole_answer
from w2s_mlflow.local import kept, scratch
from w2s_mlflow.records import canonical_json

KEY = "W2S_ENDPOINT_KEY"
"""Environment variable that holds the API key; a local server may need no key."""
FOLDER = "endpoint"
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
"""HTTP status codes after which a request is retried."""
MOST_TOKENS = 10**12
"""Upper bound of the number of tokens that a server may report for one answer."""
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
            timeout: seconds within which the whole answer to one attempt must arrive.
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
        with self._session() as session, ThreadPoolExecutor(self.concurrency) as workers:
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
                answer = self._ask(session, body, stopped)
            except ConfigError:
                stopped.set()
                raise
            _write(file, {**request, "text": answer.text, "tokens": answer.tokens})
        return answer

    def _ask(self, session: requests.Session, body: Body, stopped: threading.Event) -> Answer:
        """Send a request until it is answered, at most `retries` + 1 times."""
        for attempt in itertools.count():
            outcome = self._attempt(session, body)
            if isinstance(outcome, Answer):
                return outcome
            if not outcome.again or attempt == self.retries:
                raise outcome.error
            pause.sleep(stopped, pause.seconds(attempt, outcome.retry_after))
        raise AssertionError  # unreachable: `count` does not end

    def _attempt(self, session: requests.Session, body: Body) -> Answer | _Failure:
        try:
            status, headers, content = whole_answer.post(session, self.url, body, self.timeout)
        except requests.RequestException as error:
            return _Failure(self._unreachable_error(error), again=True)
        retry_after = headers.get("Retry-After")
        if status != requests.codes.ok:
            refusal = self._status_error(status, content, str(body["model"]))
            return _Failure(refusal, status in RETRY_STATUS, retry_after)
        value = _json(content)
        if problem := _error_message(value):  # some servers report the failure of the model behind them with status 200
            message = f"{self._name()} answered with an error after {self.retries} retries{problem}; {CACHED}"
            return _Failure(ConfigError(message), True, retry_after)
        if (answer := _content(value)) is None:
            return _Failure(
                ConfigError(f"{self._name()} returned a response that is not in OpenAI's chat completions format; {CACHED}")
            )
        return answer

    def _key(self, body: Body) -> str:
        return hashlib.sha256(canonical_json({"url": self.url, "body": body}).encode()).hexdigest()

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # store no cookies, as threads share the session
        session.auth = _authorized  # without this, the library `requests` would send passwords from ~/.netrc
        for scheme in ("http://", "https://"):
            session.mount(scheme, whole_answer.Adapter(pool_maxsize=self.concurrency))
        return session

    # --- error messages of failed requests ---

    def _name(self) -> str:
        return f"the judge's endpoint {self.url}"

    def _unreachable_error(self, error: requests.RequestException) -> ConfigError:
        timed_out = isinstance(error, requests.Timeout)
        problem = (
            f"did not respond within timeout={self.timeout:g} seconds" if timed_out else f"cannot be reached: {_reason(error)}"
        )
        return ConfigError(f"{self._name()} {problem}, after {self.retries} retries; check endpoint=URL; {CACHED}")

    def _status_error(self, status: int, content: bytes, model: str) -> ConfigError:
        if status in (401, 403):
            problem = f"rejected the key in {KEY}" if os.environ.get(KEY) else f"requires a key: set {KEY}"
            return ConfigError(f"{self._name()} {problem} (status {status}); {CACHED}")
        message = _error_message(_json(content))
        if status == 404:
            return ConfigError(
                f"{self._name()} has no endpoint_model={model}, or the address does not exist{message}; {CACHED}"
            )
        if status == 429:
            advice = f"after {self.retries} retries; wait, or lower concurrency={self.concurrency}"
            return ConfigError(f"{self._name()} still limits the request rate {advice}; {CACHED}")
        attempts = f" after {self.retries} retries" if status in RETRY_STATUS else ""
        return ConfigError(f"{self._name()} failed with status {status}{attempts}{message}; {CACHED}")


@dataclass(frozen=True)
class _Failure:
    """A request that was not answered: the error, whether to send it again, and the server's Retry-After header."""

    error: ConfigError
    again: bool = False
    retry_after: str | None = None


def _authorized(request: requests.PreparedRequest) -> requests.PreparedRequest:
    if key := os.environ.get(KEY, "").strip():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _reason(error: requests.RequestException) -> str:
    """Return the message of the underlying network error, without the text that requests and urllib3 wrap around it."""
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    text = str(reason).splitlines()[0] if str(reason) else type(error).__name__
    return _without_key(text.rpartition("object at 0x")[2].partition(": ")[2] or text)


# --- content of answers -----------------------------------------------------------------------------------------------


def _json(content: bytes) -> Any:
    """Return the JSON value of an answer; None if it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # deeply nested JSON exceeds Python's recursion limit
        return None


def _content(value: Any) -> Answer | None:
    """Return the text of the first choice and its cost; None if the value has another form."""
    try:
        content = value["choices"][0]["message"]["content"]
        usage = value.get("usage")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text") or "") for part in content)
    # The content is null if the model used up all tokens for reasoning.
    if not isinstance(content, str | None):
        return None
    return Answer(_clean(content or ""), _tokens(usage.get("total_tokens") if isinstance(usage, dict) else None))


def _clean(text: str) -> str:
    """Return a text that files, databases and terminals take: the halves of a character are joined or replaced, and control
    characters are escaped."""
    return printable(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\r\n", "\n"))


def _tokens(value: Any) -> int:
    """Return a number of tokens; 0 if the server reports none, or something else than a finite number."""
    try:
        return max(0, min(int(value or 0), MOST_TOKENS))
    except (ValueError, TypeError, OverflowError):
        return 0


def _error_message(value: Any) -> str:
    """Return ": " and the error message of an answer; "" if it reports no error.

    The message is in the field `error` (OpenAI) or `detail` (FastAPI), or in the field `error` of the first choice.
    """
    if not isinstance(value, dict):
        return ""
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = value.get("error") or first.get("error") or ("" if choices else value.get("detail"))
    if not error:
        return ""
    message = error.get("message") or error if isinstance(error, dict) else error
    return f": {_without_key(' '.join(_clean(str(message)).split()))[:200]}"


def _without_key(text: str) -> str:
    key = os.environ.get(KEY, "").strip()
    return text.replace(key, "***") if key else text


# --- cached answers ---------------------------------------------------------------------------------------------------


def _read(file: Path, request: Mapping[str, Any]) -> Answer | None:
    """Return the cached answer; None if the file is missing, is damaged or holds the answer to a different request."""
    if (text := kept.read(file)) is not None:
        content = json.loads(text)
        if {name: content[name] for name in request} == request:
            return Answer(_clean(str(content["text"])), _tokens(content["tokens"]))
    return None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    kept.write(file, canonical_json(content).encode())


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
