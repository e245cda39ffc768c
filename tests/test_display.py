"""What is printed: no control character, no credential, and JSON alone on standard output."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow import display

SECRET = "Tr0ub4dor"
PASSWORDS = st.text(st.sampled_from("abc012@/:?#%-é"), max_size=12).map(lambda text: text[:6] + SECRET + text[6:])


@given(PASSWORDS, st.sampled_from(["http", "https", "postgresql+psycopg2", "mysql"]))
@settings(max_examples=60, deadline=None)
def test_no_part_of_a_password_is_shown_however_it_is_written(password: str, scheme: str) -> None:
    uri = f"{scheme}://ann:{password}@db.example:5432/runs"
    assert display.masked(uri) == f"{scheme}://ann:***@db.example:5432/runs"
    assert SECRET not in display.redacted(f"cannot connect to {uri}, and not to {uri}")


@pytest.mark.parametrize(
    ("uri", "raw"),
    [
        ("postgresql://me:a@b@127.0.0.1/runs", True),
        ("postgresql://me:a/b@127.0.0.1/runs", True),
        ("http://me:a@b/c@127.0.0.1:5000", True),
        ("http://me:a?b@127.0.0.1:5000", True),
        ("http://me:a%40b%2Fc@127.0.0.1:5000", False),
        ("http://me:a@127.0.0.1:5000/?x=a@b", False),
        ("http://127.0.0.1:5000/a@b", False),
        ("sqlite:////data/a:b@c/mlflow.db", False),
        ("databricks", False),
    ],
)
def test_a_password_that_is_not_encoded_is_recognised(uri: str, raw: bool) -> None:
    assert display.has_raw_password(uri) == raw


def test_a_secret_of_the_environment_is_masked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("SOME_STORE", "postgresql://me:s%40cret-two@host/db")
    assert display.redacted(f"x{SECRET} s%40cret-two s@cret-two") == "x*** *** ***"


@given(st.text(st.characters(), max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = display.printable(text)
    assert not display.CONTROL.search(shown) and shown.encode().decode() == shown
    assert shown == text or display.CONTROL.search(text)


def test_a_log_line_has_no_control_characters() -> None:
    record = logging.LogRecord("w2s_mlflow", logging.INFO, "", 0, "trained %s", ("a\x1b[2Jb",), None)
    assert display.PrintableFormatter("%(message)s").format(record) == "trained a\\x1b[2Jb"


def test_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with display.guarded_streams():
        print("a line of a library about http://me:hunter22@host")
        display.print_json({"pgr": math.nan, "list": (1.5, math.inf)})
    output, error = capsys.readouterr()
    assert json.loads(output) == {"pgr": None, "list": [1.5, None]}
    assert error == "a line of a library about http://me:***@host\n"


def test_what_programs_and_tracebacks_write_is_guarded_too() -> None:
    code = (
        "import os, subprocess\nfrom w2s_mlflow import display\n"
        "with display.guarded_streams():\n"
        "    os.write(1, b'native\\n')\n    subprocess.run(['echo', 'child'])\n    display.print_json([1])\n"
        "    raise ValueError('no http://me:hunter22@host')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[1]\n" and done.returncode == 1
    assert "native" in done.stderr and "child" in done.stderr
    assert "ValueError: no http://me:***@host" in done.stderr and "hunter22" not in done.stderr
