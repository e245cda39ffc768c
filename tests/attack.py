"""An attack on what is kept on disk and in the store: `python -m tests.attack [TRIES]` prints each fault with its counts.

`survived`: the answer afterwards is the right one, or one sentence. `lost`: something that was there is missing or wrong.
`doubled`: something is there twice. The slow suite runs a small part (tests/test_attack.py).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.local.test_kept import KEPT, plain
from w2s_mlflow.search.journal import Journal
from w2s_mlflow.tracking import spool

WRITER = """
import sys
from pathlib import Path
from w2s_mlflow.search.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    journal.append_logs([{"writer": sys.argv[2], "number": number}])
    print(number, flush=True)
"""
"""A process that appends records to a journal, and says each number once the record is stored."""

SPOOLER = """
import sys
from w2s_mlflow.tracking import spool
written = spool.create(spool.Header(sys.argv[1], "a run", "a store", "0", "machine:1:1"))
for number in range(10_000):
    written.add({"number": number})
    if number % 3 == 2:
        written.remove_first()
    print(number, flush=True)
"""
"""A process that adds records to a spool and removes a third of them, as if they were sent; it says each number once it is
stored."""


@dataclass
class Count:
    """What became of the tries of one fault."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0

    def add(self, lost: bool, doubled: bool = False) -> None:
        self.tried, self.lost, self.doubled = self.tried + 1, self.lost + lost, self.doubled + doubled
        self.survived += not (lost or doubled)


def flipped_byte(tries: int, directory: Path, chance: random.Random) -> Count:
    """One byte of a kept file is flipped: the file must count as missing."""
    count = Count()
    for _ in range(tries):
        write, read, missing = KEPT[chance.choice(sorted(KEPT))]
        file = directory / "kept"
        write(file)
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= chance.randint(1, 255)
        file.write_bytes(content)
        count.add(lost=plain(read(file)) != plain(missing))
    return count


def kill_while_writing(tries: int, directory: Path, chance: random.Random) -> Count:
    """A writer of a journal is killed at a random moment: each record that it has called stored must be there once."""
    count = Count()
    for number in range(tries):
        file = directory / f"killed-{number}"
        process = _writer(file, "a", 10_000)
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(chance.randint(1, 20))]
        os.kill(process.pid, signal.SIGKILL)
        said += [int(line) for line in process.communicate()[0].splitlines()]
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)  # Optuna breaks the lock of a dead process after 30 s
        found = [log["number"] for log in Journal(file).read_logs(0)]
        count.add(lost=not set(said) <= set(found), doubled=len(found) > len(set(found)))
    return count


def kill_while_spooling(tries: int, directory: Path, chance: random.Random) -> Count:
    """A process that fills a spool is killed at a random moment: the next one must find each record that was not sent, once."""
    count = Count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_SCRATCH", str(directory))
        for number in range(tries):
            run_id = f"{number:032x}"
            process = subprocess.Popen([sys.executable, "-c", SPOOLER, run_id], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(chance.randint(1, 20))]
            os.kill(process.pid, signal.SIGKILL)
            said += [int(line) for line in process.communicate()[0].splitlines()]
            taken = spool.take(spool.path_of(run_id))
            found = [record["number"] for record in taken.records()] if taken else []
            sent = sum(record % 3 == 2 for record in said)
            lost = not set(range(sent + 1, max(said) + 1)) <= set(found) or found != sorted(found)
            count.add(lost=lost, doubled=len(found) > len(set(found)))
            if taken:
                taken.remove()
    return count


def two_writers(tries: int, directory: Path, chance: random.Random) -> Count:
    """Two processes append to one journal: all records of both must be there once."""
    count = Count()
    for number in range(tries):
        file, records = directory / f"two-{number}", chance.randint(1, 30)
        for process in [_writer(file, name, records) for name in "ab"]:
            process.communicate()
        found = [(log["writer"], log["number"]) for log in Journal(file).read_logs(0)]
        expected = {(name, index) for name in "ab" for index in range(records)}
        count.add(lost=set(found) != expected, doubled=len(found) > len(set(found)))
    return count


def _writer(file: Path, name: str, records: int) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", WRITER, str(file), name, str(records)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


FAULTS: dict[str, Callable[[int, Path, random.Random], Count]] = {
    "one flipped byte in a kept file": flipped_byte,
    "a kill while a journal is written": kill_while_writing,
    "two writers of one journal": two_writers,
    "a kill while a spool is written": kill_while_spooling,
}


def attack(tries: int, seed: int = 0) -> dict[str, Count]:
    """Try each fault: the cheap one `tries` times, those with processes a twentieth as often."""
    with tempfile.TemporaryDirectory() as name:
        return {
            fault: run(tries if run is flipped_byte else max(1, tries // 20), Path(name), random.Random(seed))
            for fault, run in FAULTS.items()
        }


def main() -> int:
    """Print the table of faults. Return 1 if anything was lost or doubled."""
    counts = attack(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print("| fault | tried | survived | lost | doubled |\n|---|---|---|---|---|")
    for fault, count in counts.items():
        print(f"| {fault} | {count.tried} | {count.survived} | {count.lost} | {count.doubled} |")
    return int(any(count.survived < count.tried for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
