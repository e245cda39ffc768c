"""Every use of randomness has a stream of its own: the names, who draws from what, and what two uses of one stream once did."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_mlflow import models, streams
from w2s_mlflow.data import gold
from w2s_mlflow.losses import cross_entropy
from w2s_mlflow.modeling.heads import build
from w2s_mlflow.pipeline import ground_truth
from w2s_mlflow.records import Example, Gold, SoftLabels
from w2s_mlflow.streams import Stream
from w2s_mlflow.training import loop

PACKAGE = Path(streams.__file__).parent
STREAMS = {name: value for name, value in vars(streams).items() if isinstance(value, Stream)}
FILES = sorted(set(PACKAGE.rglob("*.py")) - {Path(streams.__file__)})


# --- the names --------------------------------------------------------------------------------------------------------


def named(tree: ast.AST) -> Iterator[str]:
    """Each mention of a constant of streams.py."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "streams":
            yield node.attr
        if isinstance(node, ast.ImportFrom) and node.module == "w2s_mlflow.streams":
            yield from (alias.name for alias in node.names)


def test_no_two_streams_have_one_name() -> None:
    assert len({stream.name for stream in STREAMS.values()}) == len(STREAMS) > 15


def test_every_stream_has_one_use_and_all_stand_in_one_file() -> None:
    uses = Counter(name for path in FILES for name in named(ast.parse(path.read_text(encoding="utf-8"))))
    assert {name: uses[name] for name in STREAMS} == dict.fromkeys(STREAMS, 1)
    assert set(uses) - set(STREAMS) <= {"generator", "torch_generator", "integer"}


# --- no generator without a stream ------------------------------------------------------------------------------------

SEEDED = {"default_rng", "SeedSequence", "RandomState", "Random", "SystemRandom", "MT19937", "PCG64", "PCG64DXSM", "Philox"}
SEEDED |= {"SFC64", "manual_seed", "manual_seed_all", "set_seed", "seed", "seed_all"}
"""What makes or seeds a generator: its arguments are draws from streams."""
DRAWN = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "multinomial", "bernoulli"}
DRAWN |= {"normal", "poisson", "bernoulli_", "exponential_", "normal_", "uniform_", "random_", "geometric_"}
"""What of torch draws from the global state unless it is given a generator."""
STATES = {"Generator", "getstate", "setstate", "get_state", "set_state", "fork_rng"}
"""What of the modules `random` may be used."""


def streamed(node: ast.expr, inside: ast.AST) -> bool:
    """Whether an argument is a call of streams.*, or a name that stands for such calls only."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in {f"streams.{name}" for name in ("generator", "integer", "torch_generator")}
    if not isinstance(node, ast.Name):
        return False
    targets = [one for one in ast.walk(inside) if isinstance(one, ast.Assign) and node.id in map(ast.unparse, one.targets)]
    taken = {one.arg for one in ast.walk(inside) if isinstance(one, ast.arg)}
    return bool(targets) and node.id not in taken and all(streamed(one.value, inside) for one in targets)


def bare(tree: ast.AST) -> Iterator[str]:
    """Calls that make, seed or use a generator which is of no stream."""
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    scopes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module))
    innermost = {node: scope for scope in scopes for node in ast.walk(scope)}  # outer scopes come first
    for node, scope in innermost.items():
        if isinstance(node, ast.Call) and unseeded(node, scope, plain="random" in modules):
            yield f"{node.lineno}: {ast.unparse(node)}"


def unseeded(call: ast.Call, inside: ast.AST, *, plain: bool) -> bool:
    """Whether this call is one of them; `plain`: the file imports Python's own module `random`."""
    *of, name = ast.unparse(call.func).split(".")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in SEEDED:
        given = (*call.args, *keywords.values())
        return not given or not all(streamed(one, inside) for one in given)
    if name.endswith("Sampler"):
        seeds = [*call.args, *([keywords["seed"]] if "seed" in keywords else [])]
        return not seeds or not all(streamed(one, inside) for one in seeds)
    if "random_state" in keywords:
        return not streamed(keywords["random_state"], inside)
    if name in DRAWN and (of[:1] in (["torch"], ["nn"]) or name.endswith("_")):
        return "generator" not in keywords
    if [*of, name] == ["torch", "Generator"]:
        return True
    return of[-1:] == ["random"] and (len(of) > 1 or plain) and name not in STATES


def test_no_generator_of_the_package_is_seeded_by_anything_but_a_stream() -> None:
    found = [f"{path.name}:{one}" for path in FILES for one in bare(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "np.random.default_rng(seed)",
        "np.random.default_rng()",
        "default_rng((*seeds, start)).integers(9)",
        "np.random.default_rng(np.random.SeedSequence([seed, 1]))",
        "np.random.permutation(9)",
        "random.Random(seed)",
        "random.shuffle(rows)",
        "torch.manual_seed(0)",
        "torch.cuda.manual_seed_all(seed)",
        "torch.Generator().manual_seed(seed)",
        "torch.Generator()",
        "torch.randperm(9)",
        "weights.normal_()",
        "nn.init.normal_(weights)",
        "set_seed(config.seed)",
        "own = seed + 1\n    TPESampler(seed=own)",
        "optuna.samplers.RandomSampler()",
        "train_test_split(rows, random_state=seed)",
        "def inner(rng=default_rng(0)): ...",
        "seed = streams.integer(seed, streams.A)\n    torch.manual_seed(seed)",
        "own = streams.integer(seed, streams.A)\n    own = 3\n    torch.manual_seed(own)",
    ],
)
def test_the_walk_finds_each_kind_of_generator_without_a_stream(line: str) -> None:
    assert [*bare(ast.parse(f"import random\ndef drawn(seed):\n    {line}\n"))]


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(streams.integer(seed, streams.A, 1))",
        "random.Random(streams.integer(seed, streams.A))",
        "own = streams.integer(seed, streams.A)\n    optuna.samplers.TPESampler(seed=own, constant_liar=True)",
        "streams.generator(seed, streams.A).permutation(9)",
        "torch.empty(3).exponential_(generator=given)",
        "np.random.get_state()",
        "nn.init.zeros_(weights)",
    ],
)
def test_the_walk_lets_streams_pass(line: str) -> None:
    assert [*bare(ast.parse(f"import random\ndef drawn(seed):\n    {line}\n"))] == []


# --- the wrong share of a batch ---------------------------------------------------------------------------------------

ROWS, WRONG, BATCH = 1600, 400, 32


def wrong_shares(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The share of wrong labels in each batch of a first epoch on random labels. The truth is always the first class."""
    rows = [Example(f"i{row}", f"g{row}", ("Ke1 kf8 Qd4",), ("Qd5", "Nf5")) for row in range(ROWS)]
    monkeypatch.setattr(gold, "gold_of", lambda config: Gold({row.id: 0 for row in rows}))
    answers_N = np.arange(ROWS) % (ROWS // WRONG) == 0
    weak = SoftLabels(tuple(row.id for row in rows), ("",) * ROWS, np.eye(2, dtype=np.float32)[answers_N.astype(int)])
    context: Any = SimpleNamespace(
        options=SimpleNamespace(seed=seed),
        split=SimpleNamespace(transfer=tuple(rows), transfer_validation=()),
        task=SimpleNamespace(classes=2),
    )
    labels = ground_truth.random_labels(context, weak, SimpleNamespace(metrics=lambda values: None))  # type: ignore[arg-type]
    found: list[float] = []

    def loss(logits_NC: torch.Tensor, labels_NC: torch.Tensor, progress: float) -> torch.Tensor:
        found.append(float(labels_NC[:, 1].mean()))
        return cross_entropy.loss(logits_NC, labels_NC, progress, cross_entropy.Options())

    head = build("lm_choice", *models.load(models.find("chess-27k", "weak"), pretrained=True), 2)
    options = loop.Options(epochs=1, batch_size=BATCH, learning_rate=1e-3, seed=seed)
    loop.fit(head, head.encode(rows), labels.of([row.id for row in rows]), loss, options)
    return found


def test_wrong_labels_come_to_each_batch_as_often_as_chance_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts of one length, where batches are as they were shuffled.

    1/4 of the labels are wrong. A batch of 32 drawn from 1600 has a wrong share of variance 1/4 3/4 / 32 = .00586, times
    (1600 - 32) / 1599 as it is drawn without replacement: .00575. Over 4 x 50 batches (49 degrees of freedom each) it is met to
    sqrt(2 / 196) = .101 of it; four times that lets .0034 to .0081 pass. The stream that once was shared had .43^2 = .185.
    """
    shares = np.array([wrong_shares(seed, monkeypatch) for seed in range(4)])
    assert shares.shape == (4, 50) and shares.mean(axis=1) == pytest.approx(0.25)
    assert 0.0034 < shares.var(axis=1, ddof=1).mean() < 0.0081
    assert shares.max() < 0.6  # one is larger with a chance of 6e-6


# --- what a stream is -------------------------------------------------------------------------------------------------

KEYS = st.tuples(
    st.integers(0, 2**32 - 1), st.sampled_from(list(STREAMS.values())), st.lists(st.integers(0, 2**40), max_size=3).map(tuple)
)
ONE, TWO = Stream("one"), Stream("two")


def draws(seed: int, stream: Stream, more: tuple[int, ...]) -> tuple[object, ...]:
    """What the three kinds give first."""
    tensor = torch.rand(2, dtype=torch.float64, generator=streams.torch_generator(seed, stream, *more))
    numbers = streams.generator(seed, stream, *more).integers(2**63, size=2)
    return (*numbers.tolist(), *tensor.tolist(), streams.integer(seed, stream, *more))


@given(KEYS, KEYS)
def test_another_seed_name_or_integer_is_another_stream(
    one: tuple[int, Stream, tuple[int, ...]], other: tuple[int, Stream, tuple[int, ...]]
) -> None:
    assert draws(*one) == draws(*one)
    assert (draws(*one) == draws(*other)) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, ONE, ()), (0, ONE, (0,))),
        ((1, ONE, ()), (0, ONE, (1,))),
        ((1, ONE, (2,)), (2, ONE, (1,))),
        ((2**32, ONE, ()), (0, ONE, (1,))),
        ((1, ONE, (2, 3)), (1, ONE, (23,))),
        ((1, ONE, (2**32,)), (1, ONE, (0, 1))),
        ((0, ONE, ()), (0, TWO, ())),
        ((0, Stream("a"), (1,)), (0, Stream("a, 1"), ())),
    ],
)
def test_what_seed_sequence_itself_confuses_is_told_apart(one: Any, other: Any) -> None:
    assert all(a != b for a, b in zip(draws(*one), draws(*other), strict=True))


def test_the_same_integers_of_numpy_are_the_same_stream() -> None:
    assert draws(np.int64(3), ONE, (np.int32(4),)) == draws(3, ONE, (4,))  # type: ignore[arg-type]


def test_the_encoding_stays_what_it_is() -> None:
    """Numbers of version 0.2; SeedSequence promises that they stay. Others would be another draw for every result there is."""
    assert streams.integer(0, Stream("training/batch-order")) == 546666833
    assert streams.integer(7, Stream("training/dropout"), 1, 2**33) == 2503687619


def test_the_module_loads_no_torch() -> None:
    code = "import sys; from w2s_mlflow import streams as s; s.generator(0, s.TRIALS, 1); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True)
