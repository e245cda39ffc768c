"""An attack on what is kept on disk and in the store: `python -m tests.attack [TRIES]` prints each fault with its counts.

`survived`: the answer afterwards is the right one, or one sentence. `lost`: something that was there is missing or wrong.
`doubled`: something is there twice. The slow suite runs a small part (tests/test_attack.py).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests._dying import command
from tests.local.test_kept import KEPT, plain
from tests.test_kill import environment, predictions_in, runs_in
from w2s_mlflow.search.journal import Journal

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


# --- a whole training -------------------------------------------------------------------------------------------------

SIZES = ["--seed", "0", "--train-size", "100", "--test-size", "80", "--epochs", "2", "--early-stopping", "none"]
TRAINING = ["student", "--weak", "chess-27k", "--strong", "chess-43k", *SIZES, "--checkpoint-every", "2"]
"""A supervisor, a ceiling and a student, each with two checkpoints: all that a run writes."""
NEVER = 10**9
"""The number of a write that no process reaches."""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests._dying"])  # seconds of imports, once instead of at every start


def run_until(write: int, directory: Path) -> int | None:
    """Run TRAINING in a directory until it ends or is killed before the write of this number. Return the exit status."""
    process = start(write, directory)
    process.join(timeout=300)
    if process.exitcode is None:  # it hangs
        process.kill()
        process.join()
        return None
    return process.exitcode


def start(write: int, directory: Path) -> ForkServerProcess:
    """Start TRAINING in a directory, to be killed before the write of this number."""
    directory.mkdir(exist_ok=True)
    log = directory.with_suffix(".log")
    process = CONTEXT.Process(target=command, args=(write, TRAINING, directory, environment(directory), log))
    process.start()
    return process


def whole_training(directory: Path) -> Path:
    """Return the directory of a training that nobody disturbed, which is made once."""
    whole = directory / "whole"
    if not whole.exists() and (status := run_until(NEVER, whole)):
        raise RuntimeError(f"the training ended with {status}: {whole.with_suffix('.log').read_text()}")
    return whole


def is_lost(directory: Path, whole: Path) -> bool:
    """Return whether a finished result is missing or has other bits, or whether a run or a checkpoint was left behind."""
    expected, found = predictions_in(whole), predictions_in(directory)
    same = found.keys() == expected.keys() and all((found[key] == expected[key]).all() for key in expected)
    running = any(run.info.status == "RUNNING" for run in runs_in(directory))
    return not same or running or any((directory / "scratch").glob("*/*/state.json"))


def is_doubled(directory: Path) -> bool:
    """Return whether two finished runs have one fingerprint."""
    finished = [run.data.tags.get("w2s.fingerprint") for run in runs_in(directory) if run.info.status == "FINISHED"]
    return max(Counter(filter(None, finished)).values(), default=0) > 1


LOST, DOUBLED = 1, 2


def judge(directory: Path, whole: Path) -> None:
    """Exit with a status that says what is wrong with a store; to be called in a process of its own."""
    sys.exit(LOST * is_lost(directory, whole) + DOUBLED * is_doubled(directory))


def ended(directory: Path, whole: Path) -> tuple[bool, bool]:
    """Let TRAINING come to its end in a directory. Return whether anything is lost, and whether anything is doubled."""
    failed = run_until(NEVER, directory) != 0
    process = CONTEXT.Process(target=judge, args=(directory, whole))  # MLflow keeps the files of databases open
    process.start()
    process.join()
    wrong = process.exitcode or 0
    lost, doubled = failed or wrong < 0 or bool(wrong & LOST), wrong > 0 and bool(wrong & DOUBLED)
    if lost or doubled:
        print(f"lost: {lost}, doubled: {doubled}; {directory.with_suffix('.log').read_text()}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    return lost, doubled


def kill_between_writes(tries: int, directory: Path, chance: random.Random) -> Count:
    """A training is killed before a random write, again and again until it ends: its results are those of a calm one."""
    whole, count, number = whole_training(directory), Count(), 0
    while count.tried < tries:
        killed, number, kills = directory / f"between-{number}", number + 1, 1
        while run_until(chance.randint(0, 120), killed) == -signal.SIGKILL and count.tried + kills < tries:
            kills += 1
        for _ in range(kills - 1):  # the end shows what the kills before have done, too
            count.add(lost=False)
        count.add(*ended(killed, whole))
    return count


def kill_at_any_time(tries: int, directory: Path, chance: random.Random) -> Count:
    """A training is killed after a random time: started again, it ends with the results of a calm one."""
    whole, count = whole_training(directory), Count()
    for number in range(tries):
        killed = directory / f"any-time-{number}"
        killed.mkdir()
        process = start(NEVER, killed)
        process.join(timeout=chance.uniform(0.2, 6))
        process.kill()
        process.join()
        count.add(*ended(killed, whole))
    return count


def flipped_byte_of_a_store(tries: int, directory: Path, chance: random.Random) -> Count:
    """One byte of an artifact or a cached file of a finished training is flipped, and the command is run again.

    The damaged result is made anew, or the damage is of no consequence: the results are those of before.
    """
    whole, count, store, before = whole_training(directory), Count(), directory / "flipped", directory / "before"
    run_until(NEVER, store)
    shutil.copytree(store, before)
    files = [path for folder in ("mlruns", "scratch") for path in (store / folder).rglob("*") if path.is_file()]
    files = sorted(path for path in files if path.stat().st_size)
    for _ in range(tries):
        file = chance.choice(files)
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= chance.randint(1, 255)
        file.write_bytes(content)
        count.add(*ended(store, whole))
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(before, store)  # to the same place, because the store knows its artifacts by their paths
    return count


def _writer(file: Path, name: str, records: int) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", WRITER, str(file), name, str(records)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


FAULTS: dict[str, Callable[[int, Path, random.Random], Count]] = {
    "one flipped byte in a kept file": flipped_byte,
    "a kill while a journal is written": kill_while_writing,
    "two writers of one journal": two_writers,
    "a kill between any two writes of a training": kill_between_writes,
    "a kill at any time of a training": kill_at_any_time,
    "one flipped byte in an artifact or cached file": flipped_byte_of_a_store,
}


def attack(tries: int, seed: int = 0) -> dict[str, Count]:
    """Try each fault: the cheap one `tries` times, those with processes a fortieth as often."""
    with tempfile.TemporaryDirectory() as name:
        return {
            fault: run(tries if run is flipped_byte else max(1, tries // 40), Path(name), random.Random(seed))
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
