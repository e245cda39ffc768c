"""The judge behind an OpenAI-compatible server: a real server over a real socket, with all that can go wrong there."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests import servers
from tests.judges.chat_server import KEY, Reply, said, serving
from w2s_mlflow import config, judges
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import _chat, _pause, endpoint
from w2s_mlflow.records import Debate, Example, Explanation, Side

WEAK = Side("weak", 0, "it is no duck", Explanation("swims", (1,)))
SERVER = {"endpoint": "http://host", "endpoint_model": "tiny"}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, a key, and no waiting."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    monkeypatch.setenv(_chat.KEY, KEY)
    monkeypatch.setattr(_pause, "BACKOFF", 0.001)
    monkeypatch.setattr(_pause, "JITTER", 0.001)
    return tmp_path


def debate(number: int = 0) -> Debate:
    strong = Side("strong", 1, "it is a duck", Explanation(f"quacks, {number}", (3,)))
    return Debate(Example(f"q{number}", "g", ("It swims and quacks loudly",)), strong, WEAK)


def judge(url: str, **more: Any) -> judges.Judge:
    return endpoint.make(endpoint.Options(endpoint=url, endpoint_model="tiny", **more), None)


def prefers_quacking(body: dict[str, Any], before: int) -> Reply:
    """The side that shows the quacking wins, wherever it stands."""
    text = body["messages"][-1]["content"]
    winner = "A" if re.search(r"A shows: quacks", text) else "B"
    return said(f"Ducks quack.\n\nWINNER: {winner} CONFIDENCE: 80", tokens=21)


def test_a_verdict_in_each_order_with_its_cost_and_rationale() -> None:
    with serving(prefers_quacking) as served:
        first, second = judge(served.url)([debate(), debate().swapped()])
    assert first.log_odds == pytest.approx(math.log(4)) and second.log_odds == pytest.approx(-math.log(4))
    assert (first.order, second.order, first.cost, second.cost) == ("strong,weak", "weak,strong", 21, 21)
    assert judges.preference(first, second) == pytest.approx(math.log(4)) and judges.bias(first, second) == pytest.approx(0)
    assert first.rationale.startswith("Ducks quack.")
    (body, headers), _ = served.requests
    assert body["model"] == "tiny" and body["temperature"] == 0 and body["max_tokens"] == 300
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_the_judge_reads_what_is_shown_or_all_and_never_who_is_strong() -> None:
    seen, whole = (endpoint.prompt(debate(), shown) for shown in ("evidence", "question"))
    assert "Question:\nswims quacks\n" in seen and "loudly" not in seen
    assert "Question:\nIt swims and quacks loudly\n" in whole
    for text in (seen, whole):
        assert "A claims: it is a duck" in text and "B shows: swims" in text
        assert "strong" not in text and "weak" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WINNER: A CONFIDENCE: 80", math.log(4)),
        ("Because.\nWINNER: B CONFIDENCE: 80\n\n", -math.log(4)),
        ("WINNER: A, CONFIDENCE: 80%", math.log(4)),
        ("WINNER: B", -math.log(3)),
        ("WINNER: A CONFIDENCE: 50", 0.0),
        ("WINNER: A CONFIDENCE: 100", math.log(99)),
        ("WINNER: B\nWINNER: A CONFIDENCE: 80", math.log(4)),  # the last line is the verdict, what is quoted above is none
        ("WINNER: A CONFIDENCE: 20", None),
        ("WINNER: A CONFIDENCE: 101", None),
        ("WINNER: A CONFIDENCE: 1e9", None),
        ("WINNER: A or B", None),
        ("WINNER: C", None),
        ("**WINNER: B CONFIDENCE: 80**", -math.log(4)),
        ("**WINNER:** A, **CONFIDENCE:** 80%", math.log(4)),
        ("Winner: a, confidence: 80 %", math.log(4)),
        ("WINNER: A (CONFIDENCE: 80.0)", math.log(4)),
        ("WINNER: A\r\nConfidence: 80.0%\r\n", math.log(4)),
        ("```\nWINNER: Debater A - Confidence: 80\n```", math.log(4)),
        ("<b>winner: B</b>", -math.log(3)),
        ("WINNER: A CONFIDENCE: 49.9", None),
        ("WINNER: A CONFIDENCE: \uff18\uff10", None),
        ("CONFIDENCE: 80", None),
        ("winner: A or B", None),
        ("I say WINNER: A", None),
        ("WINNER: A\nOr is it?", None),
        ("A", None),
        ("", None),
    ],
)
def test_only_a_winner_in_the_last_line_is_a_verdict(text: str, expected: float | None) -> None:
    found = endpoint.parse(text, 75)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-12)


def test_one_that_is_no_verdict_is_asked_for_once_more() -> None:
    replies = ["The first, I think.", "WINNER: A CONFIDENCE: 60"]
    with serving(lambda body, before: said(replies[before])) as served:
        (verdict,) = judge(served.url)([debate()])
    assert verdict.log_odds == pytest.approx(math.log(1.5)) and verdict.cost == 20
    again = served.requests[1][0]["messages"]
    assert [message["role"] for message in again] == ["user", "assistant", "user"]
    assert again[1]["content"] == replies[0] and "WINNER: A CONFIDENCE: 75" in again[2]["content"]


def test_one_that_is_no_verdict_twice_is_none_and_not_a_side() -> None:
    with serving(lambda body, before: said("A" if before else None)) as served:
        (verdict,) = judge(served.url)([debate()])
    assert verdict.log_odds is None and verdict.cost == 20 and len(served.requests) == 2


def test_nothing_is_paid_for_twice(scratch: Path) -> None:
    debates = [debate(), debate().swapped(), debate(), debate(1)]
    with serving(prefers_quacking) as served:
        found = judge(served.url)(debates)
        again = judge(served.url, timeout=7.0, concurrency=1)(debates)
    assert again == found and len(served.requests) == 3  # equal debates are one request, of which the first bears the cost
    assert [verdict.cost for verdict in found] == [21, 21, 0, 21]
    kept = [file.read_text() for file in scratch.rglob("*") if file.is_file()]
    assert len(kept) == 3 and not any(KEY in content for content in kept)


def test_another_model_prompt_or_setting_is_another_question() -> None:
    with serving(prefers_quacking) as served:
        for more in ({}, {"shown": "question"}, {"temperature": None}, {"max_tokens": None}):
            judge(served.url, **more)([debate()])
        endpoint.make(endpoint.Options(endpoint=served.url, endpoint_model="other"), None)([debate()])
    bodies = [body for body, _ in served.requests]
    assert len(bodies) == 5 and "temperature" not in bodies[2] and "max_tokens" not in bodies[3]


def test_what_a_crash_has_cut_off_is_asked_again(scratch: Path) -> None:
    with serving(prefers_quacking) as served:
        judge(served.url)([debate()])
        (file,) = scratch.rglob("*.json")
        file.write_text(file.read_text()[:-9])
        (verdict,) = judge(served.url)([debate()])
    assert verdict.log_odds == pytest.approx(math.log(4)) and len(served.requests) == 2


def test_a_failure_in_the_middle_keeps_what_was_paid_for() -> None:
    broken = True

    def script(body: dict[str, Any], before: int) -> Reply:
        return Reply(401) if broken and before >= 3 else prefers_quacking(body, before)

    with serving(script) as served:
        with pytest.raises(ConfigError, match=r"rejected the key in W2S_ENDPOINT_KEY \(status 401\)"):
            judge(served.url, concurrency=1)([debate(number) for number in range(8)])
        assert len(served.requests) == 4
        broken = False
        verdicts = judge(served.url, concurrency=1)([debate(number) for number in range(8)])
    assert len(served.requests) == 4 + 5 and all(verdict.cost == 21 for verdict in verdicts)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Provider returned error", "code": 502}},
        {"error": "Provider returned error"},
        {"choices": [{"error": {"message": "Provider returned error"}, "message": {"content": ""}}]},
    ],
)
def test_an_error_with_status_200_is_an_error_and_is_asked_again(body: Any) -> None:
    with serving(lambda request, before: Reply(200, body) if before < 2 else prefers_quacking(request, before)) as served:
        (verdict,) = judge(served.url, retries=2)([debate()])
        assert verdict.log_odds == pytest.approx(math.log(4)) and len(served.requests) == 3
    with (
        serving(lambda request, before: Reply(200, body)) as served,
        pytest.raises(ConfigError, match="answered with an error after 1 retries: Provider returned error"),
    ):
        judge(served.url, retries=1)([debate()])


@pytest.mark.parametrize("head", [False, True])
def test_an_answer_that_drips_is_ended_by_the_timeout(head: bool) -> None:
    """One byte in 20 ms: no single wait is long, and the whole answer would take 20 s."""
    stopped = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            if not head:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stopped.wait(0.02):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        started = time.monotonic()
        try:
            with pytest.raises(ConfigError, match=r"did not respond within timeout=0.3 seconds, after 0 retries"):
                judge(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3, retries=0)([debate()])
            assert time.monotonic() - started < 10
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize(("tokens", "cost"), [("1e400", 0), ('"12"', 12), ("null", 0), ("-3", 0), ('"many"', 0), ("[1]", 0)])
def test_what_a_server_says_of_tokens_is_a_finite_number(tokens: str, cost: int) -> None:
    body = json.dumps(said("WINNER: A").body).replace('"total_tokens": 10', f'"total_tokens": {tokens}')
    with serving(lambda request, before: Reply(200, body)) as served:
        (verdict,) = judge(served.url)([debate()])
    assert verdict.cost == cost


def test_half_a_character_and_control_characters_are_cleaned_before_they_are_kept(scratch: Path) -> None:
    with serving(lambda body, before: said("Half \ud83d, whole \ud83d\udc4d, \x1b[2J.\nWINNER: A")) as served:
        found = [judge(served.url)([debate()])[0] for _ in range(2)]
    assert found[0] == found[1] and len(served.requests) == 1
    assert found[0].rationale == "Half \ufffd, whole \U0001f44d, \\x1b[2J.\nWINNER: A"


def test_a_text_in_parts_is_read() -> None:
    body = {"choices": [{"message": {"content": [{"type": "text", "text": "Yes.\n"}, {"type": "text", "text": "WINNER: B"}]}}]}
    with serving(lambda request, before: Reply(200, body)) as served:
        (verdict,) = judge(served.url)([debate()])
    assert verdict.log_odds == pytest.approx(-math.log(3))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(status: int) -> None:
    def script(body: dict[str, Any], before: int) -> Reply:
        return Reply(status, "not now") if before < 3 else prefers_quacking(body, before)

    with serving(script) as served:
        (verdict,) = judge(served.url, retries=3)([debate()])
    assert verdict.log_odds == pytest.approx(math.log(4)) and len(served.requests) == 4


def test_a_server_that_says_when_to_come_again_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if sys._getframe(1).f_code.co_name == "sleep":  # that of the retries, not of a thread that starts
                waits.append(timeout or 0)
                return self.is_set()
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Event", Impatient)
    steps = [Reply(429, "", {"Retry-After": "7"}), Reply(429, "", {"Retry-After": "999999"}), Reply(503, ""), Reply(503, "")]
    with serving(lambda body, before: steps[before] if before < 4 else prefers_quacking(body, before)) as served:
        judge(served.url)([debate()])
    assert waits[:2] == [7, 60] and 0.004 <= waits[2] <= 0.006 and 0.008 <= waits[3] <= 0.01 and len(waits) == 4


def test_a_stop_does_not_wait_for_a_server_that_asks_for_a_minute() -> None:
    def script(body: dict[str, Any], before: int) -> Reply:
        if "quacks, 1" in body["messages"][0]["content"]:
            return Reply(401, pause=0.2)  # what stops the rest; Ctrl-C goes the same way
        return Reply(429, "", {"Retry-After": "50"})

    started = time.monotonic()
    with serving(script) as served, pytest.raises(ConfigError, match="rejected the key"):
        judge(served.url, concurrency=2)([debate(0), debate(1)])
    assert time.monotonic() - started < 10


def test_requests_are_under_way_together_but_never_more_than_allowed() -> None:
    def slow(body: dict[str, Any], before: int) -> Reply:
        reply = prefers_quacking(body, before)
        reply.pause = 0.05
        return reply

    with serving(slow) as served:
        judge(served.url, concurrency=3)([debate(number) for number in range(9)])
    assert served.most_at_once == 3


@pytest.mark.parametrize(
    ("reply", "expected", "asked"),
    [
        (Reply(401, {"error": {"message": f"bad key {KEY}"}}), r"rejected the key in W2S_ENDPOINT_KEY \(status 401\)", 1),
        (Reply(403), r"rejected the key in W2S_ENDPOINT_KEY \(status 403\)", 1),
        (
            Reply(404, {"error": {"message": "no tiny"}}),
            r"has no endpoint_model=tiny, or the address does not exist: no tiny",
            1,
        ),
        (Reply(429), r"still limits the request rate after 2 retries; wait, or lower concurrency=4", 3),
        (Reply(500, {"error": f"broken {KEY}"}), r"failed with status 500 after 2 retries: broken \*\*\*", 3),
        (Reply(400, {"error": {"message": "max_tokens is\nold"}}), r"failed with status 400: max_tokens is old", 1),
        (Reply(400, {"detail": "pinned to another"}), r"failed with status 400: pinned to another", 1),
        (Reply(307, "", {"Location": "http://127.0.0.1:1/"}), r"failed with status 307", 1),
        (Reply(200, "<html>hello</html>"), r"returned a response that is not in OpenAI's chat completions format", 1),
        (Reply(200, {"choices": []}), r"returned a response that is not in OpenAI's chat completions format", 1),
        (Reply(200, {"choices": [{"message": {"content": [1]}}]}), r"returned a response that is not in OpenAI's", 1),
        (Reply(200, []), r"returned a response that is not in OpenAI's chat completions format", 1),
    ],
)
def test_each_failure_is_one_sentence_without_the_key(
    reply: Reply, expected: str, asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda body, before: reply) as served, pytest.raises(ConfigError, match=expected) as failed:
        judge(served.url, retries=2)([debate()])
    assert len(served.requests) == asked and served.url in str(failed.value)
    assert KEY not in str(failed.value) and KEY not in caplog.text and "\n" not in str(failed.value)
    assert str(failed.value).endswith("completed answers are cached, so run the same command again")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_chat.KEY)
    with (
        serving(lambda body, before: Reply(401)) as served,
        pytest.raises(ConfigError, match="requires a key: set W2S_ENDPOINT_KEY"),
    ):
        judge(served.url)([debate()])
    assert "Authorization" not in served.requests[0][1]


def test_a_password_of_this_machine_is_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(_chat.KEY)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(prefers_quacking) as served:
        judge(served.url)([debate()])
    assert "Authorization" not in served.requests[0][1]


def test_a_server_that_does_not_answer_in_time_is_named() -> None:
    def slow(body: dict[str, Any], before: int) -> Reply:
        return Reply(200, {}, pause=0.3)

    with (
        serving(slow) as served,
        pytest.raises(ConfigError, match=r"did not respond within timeout=0.1 seconds, after 1 retries"),
    ):
        judge(served.url, timeout=0.1, retries=1)([debate()])
    assert len(served.requests) == 2


def test_nobody_there_is_named() -> None:
    with serving(prefers_quacking) as served:
        pass
    with pytest.raises(ConfigError, match=r"cannot be reached: .*[Cc]onnection refused.*check endpoint=URL"):
        judge(served.url, retries=1)([debate()])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/", "http://host:8000/v1/chat/completions"),
        ("https://host/api/v1", "https://host/api/v1/chat/completions"),
        ("https://host/v1/chat/completions/", "https://host/v1/chat/completions"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert _chat.address(url) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "--judge-options must be endpoint=URL,endpoint_model=NAME for the judge endpoint"),
        ({"endpoint": "http://host"}, "--judge-options must be endpoint=URL,endpoint_model=NAME"),
        ({**SERVER, "endpoint": "host:80"}, "endpoint=URL of --judge-options must be an http"),
        ({**SERVER, "endpoint": "http://me:secret@host"}, "without user, password or query"),
        ({**SERVER, "endpoint": "http://host?key=secret"}, "without user, password or query"),
        ({**SERVER, "shown": "all"}, "shown=... of --judge-options must be one of evidence, question, got 'all'"),
        ({**SERVER, "retries": "-1"}, "retries=... of --judge-options must be at least 0, got -1"),
        ({**SERVER, "concurrency": "0"}, "concurrency=... of --judge-options must be at least 1, got 0"),
        ({**SERVER, "temperature": "-1"}, "temperature=... of --judge-options must be at least 0, got -1.0"),
        ({**SERVER, "unsaid": "100"}, r"unsaid=... of --judge-options must be in \[50, 99\], got 100"),
        ({**SERVER, "timeout": "soon"}, "timeout=... of --judge-options must be a number, got 'soon'"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as failed:
        config.parse(endpoint.Options, options)
    assert "secret" not in str(failed.value)


@pytest.mark.server
def test_a_language_model_served_by_transformers_judges(tmp_path: Path) -> None:
    """`transformers serve`, as a person would start it, with a model that always lets the first side win: D is 0."""
    pytest.importorskip("openai", reason="transformers serve needs it")
    names_the_first(tmp_path / "model")
    with servers.transformers_serve(tmp_path / "model", tmp_path) as url:
        own = endpoint.make(endpoint.Options(endpoint=url, endpoint_model=str(tmp_path / "model"), retries=1), None)
        first, second = own([debate(), debate().swapped()])
        assert own([debate()])[0].log_odds == first.log_odds
        other = endpoint.make(endpoint.Options(endpoint=url, endpoint_model="another", retries=1), None)
        with pytest.raises(ConfigError, match=r"failed with status 400: .*requested 'another'"):
            other([debate()])
    assert first.log_odds == second.log_odds == pytest.approx(math.log(4)) and first.cost > 500
    assert judges.preference(first, second) == 0 and judges.bias(first, second) == pytest.approx(math.log(4))


def names_the_first(directory: Path) -> None:
    """Write a Llama of bytes whose next token hangs on the last one alone: after a line's end the verdict, then the end."""
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|end|>"]
    words = Tokenizer(models.BPE({letter: id_ for id_, letter in enumerate(letters)}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>", pad_token="<|end|>")  # type: ignore[no-untyped-call]
    tokenizer.add_tokens(["WINNER: A CONFIDENCE: 80"])
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'] + '\\n' }}{% endfor %}"
    line, end, verdict = letters.index("\u010a"), len(letters) - 1, len(letters)
    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    own = {"vocab_size": verdict + 1, "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": end}
    model = LlamaForCausalLM(LlamaConfig.from_dict({**sizes, **own, "pad_token_id": end}))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(model.model.norm.weight)
    for place, (before, after) in enumerate(((line, verdict), (verdict, end))):
        model.model.embed_tokens.weight.data[before, place] = model.lm_head.weight.data[after, place] = 1.0
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
