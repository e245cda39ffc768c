"""The table of faults in the documentation, written from the tests that try them:

python -m tests.fault_table > docs/reference/faults.md
"""

from __future__ import annotations

from typing import NamedTuple

from tests.cli.test_doctor import FAULTS

DOCTOR = "tests/cli/test_doctor.py"
SERVER = "tests/tracking/backend/test_faults.py"
DELIVERY = "tests/tracking/test_delivery.py"
OUTAGES = "tests/tracking/backend/test_outages.py"
HEAD = """# Faults

What goes wrong with a machine, a server or a network, what happens then, and what to do. Each row is tried by the test that it
names; `python -m tests.fault_table` writes this page.

## While a command runs

| fault | what happens | what to do | test |
|---|---|---|---|
"""
DOCTOR_HEAD = f"""
## What `doctor` finds

`python -m w2s_mlflow doctor` prints one line for each check. The test `{DOCTOR}` makes each of these faults.

| fault | check | state | advice |
|---|---|---|---|
"""


class Row(NamedTuple):
    """A fault that a running command meets, and the test that tries it."""

    fault: str
    happens: str
    advice: str
    file: str
    test: str


ROWS = [
    Row(
        "the server is slow",
        "training goes on; what it logs waits on the local disk",
        "nothing",
        SERVER,
        "test_training_does_not_wait_for_a_slow_server",
    ),
    Row(
        "the server limits the rate (status 429)",
        "the next request waits as long as `Retry-After` says",
        "nothing",
        SERVER,
        "test_a_server_that_limits_the_rate_is_waited_for_as_it_asks",
    ),
    Row(
        "answers are lost, or requests arrive twice",
        "requests are repeated; each has its effect once",
        "nothing",
        SERVER,
        "test_lost_and_repeated_requests_lose_and_double_nothing",
    ),
    Row(
        "the server restarts",
        "each request is repeated, for at most `W2S_SERVER_WAIT` seconds (default 300)",
        "nothing",
        SERVER,
        "test_a_server_that_comes_back_is_found_again_by_all_requests",
    ),
    Row(
        "the server is gone for good",
        "the command ends after `W2S_SERVER_WAIT` seconds; a complete result stays on the local disk",
        "`python -m w2s_mlflow upload` when the server is back",
        SERVER,
        "test_a_server_that_is_gone_for_good_costs_no_result",
    ),
    Row(
        "SIGTERM while the server hangs, is away or limits the rate",
        "the command ends within 5 seconds, and keeps its checkpoint and what was not sent",
        "run the same command again",
        SERVER,
        "test_sigterm_ends_a_training_in_time_whatever_the_server_does",
    ),
    Row(
        "the process is killed while records wait to be sent",
        "the next command sends them and continues from the checkpoint",
        "run the same command again",
        SERVER,
        "test_killed_writers_lose_and_double_nothing",
    ),
    Row(
        "the SQLite database is locked by another program",
        "requests are repeated; then the command ends with `database is locked`",
        "end the other program, then run the same command again",
        DELIVERY,
        "test_a_locked_database_is_reported_in_a_plain_sentence",
    ),
    Row(
        "another machine makes the result meanwhile",
        "the late run ends as KILLED and does not count",
        "nothing",
        DELIVERY,
        "test_a_result_that_another_machine_has_made_meanwhile_is_not_doubled",
    ),
    Row(
        "a file that waits to be sent is damaged",
        "`upload` names it; the next command makes the result again",
        "run the command that made the run again",
        DELIVERY,
        "test_a_damaged_artifact_of_a_spool_is_made_again",
    ),
]


def table() -> str:
    """Return the page."""
    rows = [f"| {row.fault} | {row.happens} | {row.advice} | `{row.file}`: `{row.test}` |" for row in ROWS]
    found = [f"| {fault} | {check} | {state} | `{advice}` |" for fault, (check, _, state, _, advice) in FAULTS.items()]
    return HEAD + "\n".join(rows) + "\n" + DOCTOR_HEAD + "\n".join(found) + "\n"


if __name__ == "__main__":
    print(table(), end="")
