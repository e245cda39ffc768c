"""A training that is killed goes on to the same bits; a stop waits for the step in progress; nothing damaged is used."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.losses import cross_entropy
from w2s_mlflow.modeling.heads import Encoded, Head, build
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.training import checkpoint, loop, state
from w2s_mlflow.training.checkpoint import Checkpoint

OPTIONS = loop.Options(epochs=4, batch_size=8, learning_rate=1e-2, seed=3)
SCORES = {3: 0.5, 6: 0.7, 9: 0.7}
"""By step: three epochs of three steps, the second is the best and the third ends the training."""
WORDS = ("Ke1", "kf8", "Qd4", "rb7", "Nf3")


class DeadError(Exception):
    """Stands for a kill: nothing is done about it on the way out."""


def examples(count: int) -> list[Example]:
    return [Example(f"i{n}", f"g{n}", (" ".join(WORDS[: 2 + n % 4]),), ("Qd5", "Nf5")) for n in range(count)]


def new_head(seed: int = 0) -> Head:
    """A head with dropout, and the random states that a new process would have."""
    model, tokenizer = models.load(models.find("chess-27k", "weak"), pretrained=True)
    trunk: Any = model.base_model
    trunk.norm = nn.Sequential(trunk.norm, nn.Dropout(0.2))
    loop.seed_everything(seed)
    return build("lm_choice", model, tokenizer, 2)


@cache
def data() -> tuple[Encoded, Floats]:
    labels = np.random.default_rng(0).dirichlet((1, 1), 20).astype(np.float32)
    return new_head().encode(examples(20)), labels


def noisy_loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Cross-entropy that draws from every random state there is."""
    noise = random.random() + random.gauss(0, 0.1) + np.random.rand() + np.random.normal() + float(torch.rand(()))
    return cross_entropy.loss(logits, labels, progress, cross_entropy.Options()) * (1 + 0.1 * noise)


def noisy_score(step: int) -> float:
    """The score of the epoch that ends with `step`; validation, too, draws."""
    torch.rand(3)
    return SCORES[step]


@dataclass
class Trained:
    """A training to its end or to its death, and all that can be told of it."""

    head: Head
    fit: state.Fit | None = None
    reported: dict[int, dict[str, float]] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)
    """What the random states give after it."""


def run(
    kept: Checkpoint | None = None,
    *,
    dies: Callable[[int], None] = lambda step: None,
    loss: Callable[[Tensor, Tensor, float], Tensor] = noisy_loss,
    validate: Callable[[int], float] | None = noisy_score,
    seed: int = 0,
) -> Trained:
    """Train a new head; `dies(step)` may raise after a step and before its checkpoint."""
    found = Trained(new_head(seed))

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        found.reported[step] = values
        dies(step)

    found.fit = loop.fit(found.head, *data(), loss, OPTIONS, validate=validate, report=report, checkpoint=kept)
    found.draws = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal(), float(torch.rand(()))]
    return found


def same(one: Trained, other: Trained) -> bool:
    """Whether two ended with the same bits: weights, scores, what the later steps reported, and random states."""
    a, b = one.head.state_dict(), other.head.state_dict()
    assert a.keys() == b.keys()
    steps = one.reported.keys() & other.reported.keys()
    reported = all(one.reported[step] == other.reported[step] for step in steps)
    return all(torch.equal(a[k], b[k]) for k in a) and one.fit == other.fit and one.draws == other.draws and reported


@cache
def whole() -> Trained:
    """The uninterrupted training."""
    return run()


@cache
def whole_without_validation() -> Trained:
    return run(validate=None)


def at(wanted: int, act: Callable[[], Any]) -> Callable[[int], None]:
    """Do something at one step."""
    return lambda step: act() if step == wanted else None


def die() -> None:
    raise DeadError


def sends(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a checkpoint goes; it and its parent are not there yet."""
    return tmp_path / "scratch" / "run"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Every test leaves the signals as it found them, and no alarm that would go off in another."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_noise_counts() -> None:
    assert not same(whole(), run(seed=1))


@pytest.mark.parametrize(("every", "step"), [*((1, step) for step in range(1, 10)), (4, 4), (4, 5), (4, 9)])
def test_a_training_that_dies_at_any_step_ends_with_the_same_bits(every: int, step: int, directory: Path) -> None:
    kept = Checkpoint(directory, every)
    with pytest.raises(DeadError):
        run(kept, dies=at(step, die))
    saved = checkpoint.read(directory)
    assert (saved.step if saved else 0) == (step - 1) // every * every
    again = run(kept, seed=9 if saved else 0)
    assert min(again.reported) == (step - 1) // every * every + 1
    assert same(again, whole())


def test_it_may_die_over_and_over(directory: Path) -> None:
    for step in range(2, 13):
        with pytest.raises(DeadError):
            run(Checkpoint(directory, 1), dies=at(step, die), validate=None, seed=step - 2)
    assert same(run(Checkpoint(directory, 1), validate=None, seed=99), whole_without_validation())


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_training_that_dies_in_validation_validates_again(epoch: int, directory: Path) -> None:
    def dies(step: int) -> float:
        at(3 * epoch, die)(step)
        return noisy_score(step)

    with pytest.raises(DeadError):
        run(Checkpoint(directory, 3), validate=dies)
    assert same(run(Checkpoint(directory, 3), seed=9), whole())


def test_a_finished_training_gives_its_best_weights_again(directory: Path) -> None:
    kept = Checkpoint(directory, 3)
    assert same(run(kept), whole())
    again = run(kept, seed=9)
    assert again.reported == {} and same(again, whole())


def tie(model: Any) -> None:
    model.lm_head.weight = model.model.embed_tokens.weight


def turn(model: Any) -> None:
    """Weights whose columns stand one after the other in memory."""
    weight = model.lm_head.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()


@pytest.mark.parametrize("change", [tie, turn])
def test_tied_and_turned_weights_are_kept(change: Callable[[Any], None], directory: Path) -> None:
    def changed() -> Head:
        head = new_head()
        change(head.model)
        return head

    def fitted(head: Head, dies: int = 0) -> Head:
        def report(step: int, steps: int, values: dict[str, float]) -> None:
            at(dies, die)(step)

        loop.fit(head, *data(), noisy_loss, OPTIONS, report=report, checkpoint=Checkpoint(directory, 1))
        return head

    expected = fitted(changed()).state_dict()
    checkpoint.clear(directory)
    with pytest.raises(DeadError):
        fitted(changed(), dies=5)
    found = fitted(changed())
    assert all(torch.equal(expected[name], value) for name, value in found.state_dict().items())
    assert (found.model.lm_head.weight is found.model.model.embed_tokens.weight) == (change is tie)


# --- notes ------------------------------------------------------------------------------------------------------------


def test_notes_are_of_the_step_that_is_kept(directory: Path) -> None:
    lines: list[Any] = []
    whole_ones: list[int] = []
    kept = Checkpoint(directory, 2, notes=lambda: {"lines": lines, 7: float("inf")}, saved=lambda: whole_ones.append(lines[-1]))
    with pytest.raises(DeadError):
        run(kept, dies=lambda step: lines.append(step) or at(6, die)(step))  # type: ignore[func-returns-value]
    saved = checkpoint.read(directory)
    assert saved is not None
    assert (saved.step, saved.notes) == (4, {"lines": [1, 2, 3, 4], "7": float("inf")}) and whole_ones == [2, 4]


def test_only_two_files_are_left_and_clear_removes_them(directory: Path) -> None:
    assert checkpoint.read(directory) is None
    with pytest.raises(DeadError):
        run(Checkpoint(directory, 1), dies=at(5, die))
    assert sorted(path.name for path in directory.iterdir()) == ["state.json", "step-4-epoch-1.safetensors"]
    assert (directory / "state.json").stat().st_size < 30_000
    checkpoint.clear(directory)
    assert not directory.exists() and checkpoint.read(directory) is None
    checkpoint.clear(directory)


def test_what_was_loaded_does_not_hang_on_its_file(directory: Path) -> None:
    run(Checkpoint(directory, 3))
    saved = checkpoint.read(directory)
    assert saved is not None
    best = checkpoint.tensors(saved)["best"]
    with saved.file.open("r+b") as file:
        file.write(bytes(saved.file.stat().st_size))
    assert all(torch.equal(best[name], tensor) for name, tensor in whole().head.state_dict().items())


def test_reading_needs_no_torch(directory: Path) -> None:
    run(Checkpoint(directory, 3))
    code = "import sys; from pathlib import Path; from w2s_mlflow.training import checkpoint\n"
    code += "print(checkpoint.read(Path(sys.argv[1])).step, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True)
    assert done.stdout == "9 False\n"


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGINT, 5), (signal.SIGTERM, 9)])
def test_a_stop_waits_for_its_step_and_goes_on_to_the_same_bits(number: signal.Signals, step: int, directory: Path) -> None:
    kept = Checkpoint(directory, 0)
    with pytest.raises(KeyboardInterrupt):
        run(kept, loss=_at_call(step, sends(number)))
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == step
    assert same(run(kept, seed=9), whole())


def _at_call(wanted: int, act: Callable[[], Any]) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The loss, with something done in the middle of one step."""
    calls = 0

    def loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == wanted:
            act()
        return noisy_loss(logits, labels, progress)

    return loss


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_stop_in_validation_keeps_its_score(step: int, directory: Path) -> None:
    seen: list[int] = []

    def validate(now: int) -> float:
        seen.append(now)
        at(step, sends(signal.SIGTERM))(now)
        return noisy_score(now)

    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(directory, 0), validate=validate)
    assert seen[-1] == step
    assert same(run(Checkpoint(directory, 0), validate=lambda now: seen.append(now) or noisy_score(now), seed=9), whole())  # type: ignore[func-returns-value]
    assert seen == [3, 6, 9]


def test_a_stop_that_comes_while_a_checkpoint_is_written(directory: Path) -> None:
    times: list[int] = []
    kept = Checkpoint(directory, 4, notes=sends(signal.SIGTERM), saved=lambda: times.append(1))
    with pytest.raises(KeyboardInterrupt):
        run(kept)
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == 4 and times == [1]


@pytest.mark.parametrize("slow", ["step", "validation", "save"])
def test_what_takes_too_long_after_a_stop_is_abandoned(slow: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "GRACE", 0.2)
    ended: list[str] = []
    calls = 0

    def stop_and_sleep() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        ended.append(slow)

    def notes() -> None:
        nonlocal calls
        calls += 1
        if slow == "save" and calls == 3:
            stop_and_sleep()

    def validate(step: int) -> float:
        if slow == "validation" and step == 6:
            stop_and_sleep()
        return noisy_score(step)

    loss = _at_call(6, stop_and_sleep) if slow == "step" else noisy_loss
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(directory, 2, notes=notes), loss=loss, validate=validate)
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == {"step": 4, "validation": 6, "save": 4}[slow]
    assert ended == [] and same(run(Checkpoint(directory, 2), seed=9), whole())


def test_a_second_ctrl_c_does_not_wait(directory: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one was held back")

    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(directory, 2), loss=_at_call(4, twice))
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == 2


def test_sigterm_after_ctrl_c_is_no_second_ctrl_c(directory: Path) -> None:
    """`mlflow run` passes a Ctrl-C on as SIGTERM."""
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(directory, 0), loss=_at_call(4, lambda: (sends(signal.SIGINT)(), sends(signal.SIGTERM)())))
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == 4


def test_without_a_checkpoint_signals_are_not_held_back() -> None:
    ended: list[int] = []

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(1)

    with pytest.raises(KeyboardInterrupt):
        run(loss=_at_call(2, stop))
    assert ended == []


def test_an_ignored_signal_stays_ignored(directory: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert same(run(Checkpoint(directory, 0), loss=_at_call(2, sends(signal.SIGINT))), whole())
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_trains_without_touching_signals(directory: Path) -> None:
    found: list[Trained] = []
    thread = threading.Thread(target=lambda: found.append(run(Checkpoint(directory, 2))))
    thread.start()
    thread.join()
    assert same(found[0], whole())


def test_a_stop_that_nobody_looked_at_is_raised_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), checkpoint.SignalGuard() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


# --- kills and damage -------------------------------------------------------------------------------------------------


def killed(directory: Path, checkpoints: int, seed: int) -> None:
    """A child process that trains, and is killed at whatever it does once it has written some checkpoints."""

    def saved() -> None:
        os.write(writes, b".")

    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # the threads of OpenMP do not outlive a fork, and would be waited for without end
            run(Checkpoint(directory, 1, saved=saved), seed=seed)
        finally:
            os._exit(0)
    os.close(writes)
    for _ in range(checkpoints):
        os.read(reads, 1)
    os.kill(child, signal.SIGKILL)
    os.close(reads)
    os.waitpid(child, 0)


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(directory: Path) -> None:
    steps = []
    for seed, count in enumerate((1, 2, 1, 1)):
        killed(directory, count, seed)
        saved = checkpoint.read(directory)
        assert saved is not None
        steps.append(saved.step)
    assert steps == sorted(steps) and steps[0] >= 1
    assert same(run(Checkpoint(directory, 1), seed=9), whole())


@pytest.mark.parametrize(
    ("every", "move", "older", "newer"), [(2, 3, (4, 1), (6, 1)), (3, 2, (3, 0), (3, 1)), (3, 4, (6, 1), (6, 2))]
)
def test_a_kill_between_the_two_files_leaves_the_older_checkpoint(
    every: int,
    move: int,
    older: tuple[int, int],
    newer: tuple[int, int],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace, moved = os.replace, 0

    def dies(*paths: Any) -> None:
        nonlocal moved
        moved += 1
        if moved == move:
            raise DeadError
        replace(*paths)

    with monkeypatch.context() as patch, pytest.raises(DeadError):
        patch.setattr(os, "replace", dies)
        run(Checkpoint(directory, every))
    names = {path.name for path in directory.glob("*.safetensors")}
    assert names == {f"step-{step}-epoch-{epoch}.safetensors" for step, epoch in (older, newer)}
    saved = checkpoint.read(directory)
    assert saved is not None and (saved.step, saved.state["epoch"]) == older
    again = run(Checkpoint(directory, 0), seed=9)
    assert min(again.reported) == older[0] + 1 and same(again, whole())


def test_of_several_processes_only_the_main_one_writes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.is_main_process", False)
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(directory, 1), dies=at(4, sends(signal.SIGTERM)))
    assert not directory.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_json(path: Path) -> None:
    path.write_text("[1]")


DAMAGE = [
    *((name, act) for name in ("state.json", "*.safetensors") for act in (cut, flip, empty, other_json)),
    ("*.safetensors", Path.unlink),
]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training that has died at its fifth step; to be copied."""
    directory = tmp_path_factory.mktemp("scratch") / "run"
    with pytest.raises(DeadError):
        run(Checkpoint(directory, 1), dies=at(5, die))
    return directory


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=lambda value: getattr(value, "__name__", value))
def test_a_damaged_checkpoint_is_named_and_not_read(
    name: str, damage: Callable[[Path], None], half: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(half, directory)
    assert checkpoint.read(directory) is not None
    (path,) = directory.glob(name)
    damage(path)
    assert checkpoint.read(directory) is None
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.name == "w2s_mlflow" and str(directory) in warning.message and path.name in warning.message


@pytest.mark.parametrize(("name", "damage"), [("state.json", cut), ("*.safetensors", flip)])
def test_a_training_does_not_go_on_from_a_damaged_checkpoint(
    name: str, damage: Callable[[Path], None], half: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(half, directory)
    damage(next(directory.glob(name)))
    again = run(Checkpoint(directory, 1), seed=0)
    assert min(again.reported) == 1 and same(again, whole())
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
    saved = checkpoint.read(directory)
    assert saved is not None and saved.step == 9


def test_every_flipped_byte_of_the_state_is_seen_or_changes_nothing(directory: Path) -> None:
    with pytest.raises(DeadError):
        run(Checkpoint(directory, 1, notes=lambda: {"loss": 0.25}), dies=at(2, die))
    path = directory / "state.json"
    held = path.read_bytes()
    expected = json.loads(held)["content"]
    for place in range(0, len(held), 97):
        path.write_bytes(held[:place] + bytes([held[place] ^ 4]) + held[place + 1 :])
        saved = checkpoint.read(directory)
        assert saved is None or (saved.state, saved.notes) == (expected["state"], expected["notes"])
    path.write_bytes(held)
    assert checkpoint.read(directory) is not None


# --- disks ------------------------------------------------------------------------------------------------------------


def sentence(directory: Path, reason: str) -> str:
    advice = "free some space or set W2S_SCRATCH to another directory"
    told = f"^the scratch directory {directory} cannot be written: .*{reason}.*; {advice}$"
    return told.replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_is_replaced_whole_or_not_at_all(error: type[BaseException], directory: Path) -> None:
    file = directory / "file"
    with scratch.replacing(file) as partial:
        partial.write_text("whole")
    with pytest.raises(error), scratch.replacing(file) as partial:
        partial.write_text("ha")
        raise error
    assert [(path, path.read_text()) for path in directory.iterdir()] == [(file, "whole")]


def test_a_file_that_the_system_cuts_off_is_one_sentence(directory: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(DeadError):
        run(Checkpoint(directory, 1), dies=at(3, die))
    before = sorted(directory.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ConfigError, match=sentence(directory, "File too large")):
            run(Checkpoint(directory, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(directory.iterdir()) == before
    assert same(run(Checkpoint(directory, 1), seed=9), whole())


def test_a_full_disk_is_one_sentence_and_gets_its_space_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeadError):
        run(Checkpoint(directory, 1), dies=at(3, die))
    before = sorted(directory.iterdir())
    for full_at in (1, 2):
        calls = 0

        def full(number: int, full_at: int = full_at) -> None:
            nonlocal calls
            calls += 1
            if calls == full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch, pytest.raises(ConfigError, match=sentence(directory, "No space left on device")):
            patch.setattr(os, "fsync", full)
            run(Checkpoint(directory, 1))
        assert sorted(directory.iterdir()) == before


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "run"
    with pytest.raises(ConfigError, match=sentence(directory, "Not a directory")):
        run(Checkpoint(directory, 1))


def test_a_state_that_cannot_be_read_is_one_sentence(directory: Path) -> None:
    (directory / "state.json").mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=f"^the scratch directory {directory} cannot be read: Is a directory; set W2S_SCRATCH to"
    ):
        checkpoint.read(directory)
