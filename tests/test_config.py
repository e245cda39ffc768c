"""Configs from strings and back, the wording of errors, and what each stage's Config refuses."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from w2s_mlflow import config, exceptions, records, registry, tasks
from w2s_mlflow.config import checked_dataclass, option, parse
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.validation import choices


@checked_dataclass
class Parent:
    """What a Config extends."""

    seed: int = 0
    """Seeds everything,
    twice."""
    train_size: int | None = None
    """Rows."""

    KIND: ClassVar[str] = "parent"
    """No field."""


@checked_dataclass
class Plain(Parent):
    """A Config of every type."""

    learning_rate: float = 1e-3
    """How fast."""
    quick: bool = False
    """Whether to hurry."""
    name: str = "one"
    """What it is called."""
    note: str | None = None
    """What is said of it."""
    verbose: int = option(default=1, result=False)
    """How much is printed."""
    loss_options: Mapping[str, Any] = option(default=None, options_of=("losses", "loss"))
    """Options of the loss."""


@checked_dataclass
class Bare:
    """A Config without a loss."""

    epochs: int = 2
    """Passes."""


def refused(message: str) -> Any:
    """The whole sentence, as it is printed."""
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("seed", "3", 3),
        ("seed", "-3", -3),
        ("seed", 3, 3),
        ("train_size", "40", 40),
        ("train_size", "none", None),
        ("train_size", "None", None),
        ("train_size", "", None),
        ("train_size", None, None),
        ("learning_rate", "5e-5", 5e-5),
        ("learning_rate", "1", 1.0),
        ("learning_rate", 1, 1.0),
        ("quick", "true", True),
        ("quick", "False", False),
        ("quick", "1", True),
        ("quick", "no", False),
        ("quick", True, True),
        ("name", "none", "none"),
        ("name", "12", "12"),
        ("note", "text", "text"),
        ("note", None, None),
    ],
)
def test_values_take_the_type_of_their_field(name: str, given: object, expected: object) -> None:
    found = getattr(parse(Plain, {name: given}), name)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("seed", "x", "--seed must be a whole number, got 'x'"),
        ("seed", "1.5", "--seed must be a whole number, got '1.5'"),
        ("seed", "", "--seed must be a whole number, got ''"),
        ("seed", "none", "--seed must be a whole number, got 'none'"),
        ("seed", 1.5, "--seed must be a whole number, got 1.5"),
        ("seed", True, "--seed must be a whole number, got True"),
        ("seed", None, "--seed must be a whole number, got None"),
        ("train_size", "many", "--train-size must be a whole number, got 'many'"),
        ("train_size", 2.0, "--train-size must be a whole number, got 2.0"),
        ("learning_rate", "fast", "--learning-rate must be a number, got 'fast'"),
        ("learning_rate", True, "--learning-rate must be a number, got True"),
        ("learning_rate", "nan", "--learning-rate must be finite, got nan"),
        ("learning_rate", "inf", "--learning-rate must be finite, got inf"),
        ("learning_rate", "1e999", "--learning-rate must be finite, got inf"),
        ("learning_rate", -math.inf, "--learning-rate must be finite, got -inf"),
        ("quick", "maybe", "--quick must be true or false, got 'maybe'"),
        ("quick", 1, "--quick must be true or false, got 1"),
        ("name", 3, "--name must be text, got 3"),
    ],
)
def test_values_of_another_type_are_refused(name: str, given: object, message: str) -> None:
    with refused(message):
        parse(Plain, {name: given})


@checked_dataclass
class Declared:
    """A Config with declarations of every kind."""

    mode: Literal["fast", "exact"] = option(default="fast")
    """How."""
    share: float = option(default=0.5, gt=0, le=1)
    """How much."""
    steps: int | None = option(default=None, ge=1, unset="all", formerly="rounds")
    """How often."""
    batch_size: int = option(default=32, ge=1, lt=100)
    """How many."""
    part: Literal["backbone"] | None = option(default=None, unset="none", former_values={"trunk": "backbone"})
    """What is kept."""
    labels: str | None = option(default=None, unset="method", former_values={"nothing": "none"})
    """What is taught."""
    task: str = option(default="chess", lookup=tasks.find)
    """What is learned."""
    loss_options: Mapping[str, Any] = option(default=None, options_of=("losses", "loss"))
    """Options of the loss."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "slow"}, "--mode must be one of exact, fast, got 'slow'"),
        ({"share": 0}, "--share must be in (0, 1], got 0.0"),
        ({"share": 1.5}, "--share must be in (0, 1], got 1.5"),
        ({"share": math.nan}, "--share must be finite, got nan"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"rounds": 0}, "--steps must be at least 1, got 0"),
        ({"batch_size": 2.5}, "--batch-size must be a whole number, got 2.5"),
        ({"batch_size": "32"}, "--batch-size must be a whole number, got '32'"),
        ({"batch_size": 100}, "--batch-size must be in [1, 100), got 100"),
        ({"part": "head"}, "--part must be one of backbone, none, got 'head'"),
        ({"alpha": 2}, "--alpha must be in [0, 1], got 2.0"),
        ({"steps": 2, "rounds": 2}, "--steps and its former name --rounds must not be given together"),
    ],
)
def test_the_same_values_are_refused_from_python_and_from_the_command_line(given: dict[str, Any], message: str) -> None:
    with refused(message):
        Declared(**given)
    if given != {"batch_size": "32"}:  # which the command line can read
        with pytest.raises(ConfigError, match=f"^{re.escape(message.split(', got')[0])}"):
            parse(Declared, {name: str(value) for name, value in given.items()})


def test_a_name_is_looked_up() -> None:
    with pytest.raises(ConfigError, match=r"^--task must be one of .*, got 'ches' \(did you mean chess\?\)$"):
        Declared(task="ches")


def test_declared_values_are_taken() -> None:
    assert Declared(alpha=0.6) == parse(Declared, {"alpha": "0.6"}) == Declared(loss_options={"alpha": 0.6})  # type: ignore[call-arg]
    assert Declared(share=1) == Declared(share=1.0) and type(Declared(share=1).share) is float
    assert Declared(rounds=3) == parse(Declared, {"rounds": "3"}) == Declared(steps=3)  # type: ignore[call-arg]
    assert parse(Declared, {"steps": "all", "part": "none"}) == Declared()
    assert parse(Declared, {"part": "trunk"}) == Declared(part="trunk") == Declared(part="backbone")  # type: ignore[arg-type]
    assert parse(Declared, {"labels": "nothing"}) == Declared(labels="nothing") == Declared(labels="none")
    assert parse(Declared, {"labels": "none"}).labels == "none" and parse(Declared, {"labels": "method"}).labels is None
    assert dataclasses.replace(Declared(share=0.25), steps=4) == Declared(share=0.25, steps=4)


def test_names_may_be_written_with_hyphens() -> None:
    assert parse(Plain, {"learning-rate": "0.1", "train-size": "50"}) == Plain(learning_rate=0.1, train_size=50)


def test_nothing_given_is_the_default() -> None:
    assert parse(Plain, {}) == Plain()


def test_an_unknown_option_names_the_nearest_and_the_list() -> None:
    with refused("the option must be one of --epochs, got '--epoch' (did you mean --epochs?)"):
        parse(Bare, {"epoch": "3"})
    with refused("the option must be one of --epochs, got '--zzz'"):
        parse(Bare, {"zzz": "3"})


def test_options_of_losses_are_listed_where_there_is_a_loss_and_their_field_is_not() -> None:
    with pytest.raises(ConfigError, match=r"--alpha.*--seed.*--warmup.*, got '--alfa' \(did you mean --alpha\?\)$") as error:
        parse(Plain, {"alfa": "0.5"})
    assert "--loss-options" not in str(error.value)


def test_an_option_of_a_loss_goes_to_its_field() -> None:
    assert parse(Plain, {"alpha": "0.5", "warmup": 0}).loss_options == {"alpha": 0.5, "warmup": 0.0}
    assert parse(Plain, {"alpha": "none"}).loss_options == {"alpha": None}


def test_an_option_of_a_loss_is_unknown_without_a_loss() -> None:
    with pytest.raises(ConfigError, match=r"^the option must be one of --epochs, got '--alpha'"):
        parse(Bare, {"alpha": "0.5"})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("alpha", "x", "--alpha must be a number, got 'x'"),
        ("alpha", "nan", "--alpha must be finite, got nan"),
        ("warmup", "none", "--warmup must be a number, got 'none'"),
    ],
)
def test_options_of_losses_are_checked_like_any_other(name: str, given: str, message: str) -> None:
    with refused(message):
        parse(Plain, {name: given})


def test_parsing_leaves_what_it_was_given_alone() -> None:
    given = {"loss_options": {"warmup": 0.1}, "alpha": 0.5}
    assert parse(Plain, given).loss_options == {"warmup": 0.1, "alpha": 0.5}
    assert given == {"loss_options": {"warmup": 0.1}, "alpha": 0.5}


def test_options_of_a_loss_given_together_or_alone_are_both_kept() -> None:
    assert parse(Plain, {"alpha": 0.5, "loss_options": {"warmup": 0.1}}).loss_options == {"warmup": 0.1, "alpha": 0.5}


@pytest.mark.parametrize("given", ["alpha=1", {"alpha": "much"}])
def test_options_of_a_loss_given_together_are_checked_too(given: object) -> None:
    with pytest.raises(ConfigError):
        parse(Plain, {"loss_options": given})


def test_flat_puts_the_options_of_the_loss_beside_the_others() -> None:
    found = config.flat(Plain(seed=3, loss_options={"alpha": 0.5}))
    assert found == {
        "seed": 3,
        "train_size": None,
        "learning_rate": 1e-3,
        "quick": False,
        "name": "one",
        "note": None,
        "alpha": 0.5,
    }


def test_result_options_leave_out_what_only_reports() -> None:
    quiet, loud = Plain(verbose=0), Plain(verbose=2)
    assert config.result_options(quiet) == config.result_options(loud)
    assert set(config.as_dict(quiet)) - set(config.result_options(quiet)) == {"verbose"}
    assert config.result_options(Plain(loss_options={"alpha": 0.5}))["loss_options"] == {"alpha": 0.5}


def test_a_resolved_config_survives_parsing() -> None:
    given = Plain(seed=4, train_size=None, quick=True, note="x", loss_options={"alpha": 0.25})
    assert parse(Plain, config.flat(given)) == given


def test_canonical_json_is_one_text_per_value() -> None:
    assert records.canonical_json({"b": [1, 0.1], "a": {"d": None, "c": True}}) == '{"a":{"c":true,"d":null},"b":[1,0.1]}'
    assert records.canonical_json({"a": 1, "b": 2}) == records.canonical_json({"b": 2, "a": 1})
    assert records.canonical_json(("x", 1)) == records.canonical_json(["x", 1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_canonical_json_refuses_what_json_has_not(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        records.canonical_json({"a": value})


def test_sentences_are_those_under_the_fields_inherited_ones_too() -> None:
    found = config.sentences(Plain)
    assert found["seed"] == "Seeds everything,\ntwice."
    assert found["learning_rate"] == "How fast." and found["loss_options"] == "Options of the loss."
    assert {field.name for field in dataclasses.fields(Plain)} <= set(found)


def test_wordings() -> None:
    assert str(exceptions.must("train_size", "at least 1", -2)) == "--train-size must be at least 1, got -2"
    error = exceptions.unknown("--task", "ches", ["sst2", "chess"])
    assert str(error) == "--task must be one of chess, sst2, got 'ches' (did you mean chess?)"
    assert exceptions.flag("early_stopping") == "--early-stopping"


def test_files_are_the_registry_of_plug_ins() -> None:
    assert {"cross_entropy", "confidence"} <= set(registry.plugins("losses"))
    assert {"supervisor", "ceiling", "student", "sweep", "analyze", "main"} <= set(registry.plugins("stages"))
    assert registry.plugins("losses") == tuple(sorted(registry.plugins("losses")))
    assert not [name for name in registry.plugins("stages") if name.startswith("_")]
    assert registry.plugin("losses", "confidence", "--loss").__name__ == "w2s_mlflow.losses.confidence"


@pytest.mark.parametrize("name", ["confidense", "_private", "__init__", "../stats"])
def test_a_plug_in_without_a_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--loss must be one of .*confidence.*, got "):
        registry.plugin("losses", name, "--loss")


# --- what the stages refuse -------------------------------------------------------------------------------------------

TRAINED = ("supervisor", "ceiling", "student")
FORMER = [
    *(("supervisor", "head", former, present) for former, present in tasks.FORMER_HEADS.items()),
    ("ceiling", "freeze", "trunk", "backbone"),
    ("student", "labels", "nothing", "none"),
    ("student", "method", "untuned", "zero_shot"),
    ("debate", "method", "untuned", "zero_shot"),
    ("debate", "explainer", "line", "principal_variation"),
]


def stage(name: str, **values: Any) -> Any:
    """The Config of a stage, built as from Python."""
    return registry.plugin("stages", name, "the stage").Config(**values)


@pytest.mark.parametrize("name", registry.plugins("stages"))
def test_the_defaults_of_a_stage_are_legal(name: str) -> None:
    assert parse(registry.plugin("stages", name, "the stage").Config, {}) == stage(name)


@pytest.mark.parametrize(("name", "option_", "former", "present"), FORMER)
def test_a_former_value_is_taken_for_the_present_one(name: str, option_: str, former: str, present: str) -> None:
    kind = registry.plugin("stages", name, "the stage").Config
    found = kind(**{option_: former})
    assert found == parse(kind, {option_: former}) == kind(**{option_: present})
    assert getattr(found, option_) == present and config.flat(found)[option_] == present
    assert config.identity(found)[option_] == former, "fingerprints keep the first spelling"
    shown = choices(*config.declarations(kind)[option_])
    assert former not in shown and (not shown or present in shown)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "ches"}, r"^--task must be one of .*chess.*, got 'ches' \(did you mean chess\?\)$"),
        ({"head": "choice"}, r"^--head must be one of auto, classification, lm_choice, reward, got 'choice'"),
        ({"task": "hh_rlhf", "head": "lm_choice"}, r"^--head must be reward for the task hh_rlhf, got lm_choice$"),
        ({"task": "sst2", "head": "reward"}, r"^--head must be classification or lm_choice for the task sst2, got reward$"),
        ({"epochs": 0}, r"^--epochs must be at least 1, got 0$"),
        ({"batch_size": 0}, r"^--batch-size must be at least 1, got 0$"),
        ({"batch_size": -32}, r"^--batch-size must be at least 1, got -32$"),
        ({"train_size": -1}, r"^--train-size must be at least 1, got -1$"),
        ({"test_size": 0}, r"^--test-size must be at least 1, got 0$"),
        ({"learning_rate": 0.0}, r"^--learning-rate must be in \(0, 1e\+30\), got 0.0$"),
        ({"learning_rate": -1e-3}, r"^--learning-rate must be in \(0, 1e\+30\), got -0.001$"),
        ({"learning_rate": math.nan}, r"^--learning-rate must be finite, got nan$"),
        ({"learning_rate": math.inf}, r"^--learning-rate must be finite, got inf$"),
        ({"seed": -1}, r"^--seed must be in \[0, 4294967296\), got -1$"),
        ({"seed": 2**32}, r"^--seed must be in \[0, 4294967296\), got 4294967296$"),
    ],
)
def test_every_training_stage_refuses(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(name, **values)


def test_a_loss_that_compares_examples_needs_two_of_them() -> None:
    with pytest.raises(
        ConfigError, match=r"^--batch-size must be at least 2 with --loss confidence, which compares .* a batch, got 1$"
    ):
        stage("student", method="confidence", batch_size=1)
    assert stage("student", loss="product", batch_size=1).batch_size == 1


RUNG = registry.plugin("models", "chess", "--model").SPECS[0].name
NEAR_RUNG = rf"must be one of .*{RUNG}.*, got '{RUNG}x' \(did you mean {RUNG}\?\)$"
NEAR_CONFIDENCE = r"must be one of .*confidence.*, got 'confidense' \(did you mean confidence\?\)$"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("supervisor", {"weak": f"{RUNG}x"}, rf"^--weak {NEAR_RUNG}"),
        ("ceiling", {"strong": f"{RUNG}x"}, rf"^--strong {NEAR_RUNG}"),
        ("student", {"weak": f"{RUNG}x"}, rf"^--weak {NEAR_RUNG}"),
        ("student", {"strong": f"{RUNG}x"}, rf"^--strong {NEAR_RUNG}"),
        ("student", {"strong": "gpt5"}, r"^--strong must be one of .*, got 'gpt5'"),
        ("supervisor", {"early_stopping": "weak"}, r"^--early-stopping must be one of gold, none, got 'weak'"),
        ("ceiling", {"early_stopping": "oracle"}, r"^--early-stopping must be one of gold, none, got 'oracle'"),
        ("student", {"early_stopping": "gold"}, r"^--early-stopping must be one of .*weak.*, got 'gold'"),
        ("student", {"method": "confidense"}, rf"^--method {NEAR_CONFIDENCE}"),
        ("student", {"loss": "confidense"}, rf"^--loss {NEAR_CONFIDENCE}"),
        ("student", {"method": "loss:confidense"}, rf"^--loss {NEAR_CONFIDENCE}"),
        ("student", {"method": "none+loss:product"}, r"^--method must be one of .*loss:NAME"),
        ("student", {"labels": "gold"}, r"^--labels must be .*consultancy, .*, weak, .*or a parquet file .*, got gold"),
        ("student", {"weights": "pretraind"}, r"^--weights must be one of method, pretrained, random, got 'pretraind'"),
        ("student", {"method": "confidence", "loss_options": {"alpha": 2.0}}, r"^--alpha must be in \[0, 1\], got 2.0$"),
        ("student", {"loss": "confidence", "loss_options": {"warmup": -1.0}}, r"^--warmup must be in \[0, 1\], got -1.0$"),
        ("student", {"method": "baseline", "loss_options": {"alpha": 0.5}}, r"^--alpha .*confidence.*cross_entropy"),
        ("student", {"method": "baseline", "loss": "confidence"}, r"^--loss must be cross_entropy under .*, got confidence$"),
        ("student", {"method": "zero_shot", "labels": "weak"}, r"^--labels must be none under --method zero_shot.*, got weak$"),
        ("rule", {"rule": "randon"}, r"^--rule must be one of .*random.*, got 'randon' \(did you mean random\?\)$"),
        ("rule", {"task": "ches"}, r"^--task must be one of .*chess.*, got 'ches'"),
        ("rule", {"test_size": -1}, r"^--test-size must be at least 1, got -1$"),
        ("sweep", {"sweep": "defualt"}, r"^--sweep must be one of .*default.*, got 'defualt' \(did you mean default\?\)$"),
        (
            "sweep",
            {"sweep": "missing.py"},
            r"^--sweep must be the name of a shipped sweep or the path of an existing .py file, got 'missing.py'$",
        ),
        ("sweep", {"seeds": "0-4"}, r"^--seeds must be a range such as 0..4, or distinct whole numbers .*, got '0-4'$"),
        ("main", {"seeds": "4..0"}, r"^--seeds must be a range .*, got '4..0'$"),
        ("main", {"seeds": "1,1"}, r"^--seeds must be a range .* distinct whole numbers .*, got '1,1'$"),
    ],
)
def test_a_stage_refuses(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(name, **values)


@pytest.mark.parametrize("name", ["train_size", "test_size"])
def test_a_grid_refuses_sizes_that_its_jobs_refuse(name: str) -> None:
    sweep = registry.plugin("stages", "sweep", "the stage")
    with refused(f"{exceptions.flag(name)} must be at least 1, got -4"):
        sweep.jobs(stage("sweep", **{name: -4}))


@pytest.mark.parametrize("text", ["0..4", "0,1,2,3,4", " 0,1, 2,3,4"])
def test_seeds_are_a_range_or_a_list(text: str) -> None:
    assert registry.plugin("stages", "sweep", "the stage").parse_seeds(text) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("text", ["0..99999", "0..100000000000000000000"])
def test_so_many_seeds_are_refused_before_their_data_is_split(text: str) -> None:
    with refused(f"--seeds must be at most 1,000 seeds, got '{text}'"):
        stage("sweep", seeds=text)


@pytest.mark.parametrize("name", ["max_length", "train_size", "epochs", "micro_batch", "checkpoint_every"])
def test_a_number_that_no_experiment_has_is_refused(name: str) -> None:
    with refused(f"{exceptions.flag(name)} must be at most 1,000,000,000, got {10**20}"):
        stage("student", **{name: 10**20})


def test_alpha_of_a_student_goes_to_the_options_of_its_loss() -> None:
    student = registry.plugin("stages", "student", "the stage").Config
    found = parse(student, {"method": "confidence", "alpha": "0.25"})
    assert found.loss_options == {"alpha": 0.25}
    assert found.resolved().loss_options == {"alpha": 0.25, "warmup": 0.2}
    assert parse(student, {"method": "confidence"}).resolved().loss_options["alpha"] in (0.5, 0.75)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({}, "baseline"),
        ({"loss": "confidence"}, "confidence"),
        ({"labels": "none"}, "zero_shot"),
        ({"weights": "random"}, "random_weights"),
        ({"loss": "confidence", "weights": "random"}, "random_weights+loss:confidence"),
        ({"loss": "product"}, "loss:product"),
        ({"method": "loss:product"}, "loss:product"),
        ({"method": "full+loss:entropy"}, "full+loss:entropy"),
        ({"weights": "random", "labels": "hard"}, "random_weights+labels:hard"),
        ({"method": "confidence+labels:random"}, "random_labels+loss:confidence"),
        ({"labels": "hard", "generative_epochs": "1"}, "generative+labels:hard"),
        ({"weights": "random", "labels": "hard", "loss": "product"}, "custom"),
    ],
)
def test_primitives_on_the_command_line_make_a_method(values: dict[str, str], method: str) -> None:
    found = parse(registry.plugin("stages", "student", "the stage").Config, values)
    assert found.resolved().method == method


def test_resolving_twice_changes_nothing() -> None:
    once = stage("student", method="confidence").resolved()
    assert once.resolved() == once


def test_a_preset_and_its_primitives_are_one_student() -> None:
    by_name, by_part = (stage("student", **values).resolved() for values in ({"method": "confidence"}, {"loss": "confidence"}))
    assert config.result_options(by_name) == config.result_options(by_part)
