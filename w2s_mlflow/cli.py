"""The command line: one command per stage, generated from the stage's Config.

Standard output carries one JSON object (`--json`) or nothing; all that is for people goes to standard error. Wrong input
ends in one sentence and exit status 2.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import inspect
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from w2s_mlflow import config as options
from w2s_mlflow.config import ConfigError, unknown

if TYPE_CHECKING:
    from types import FrameType, ModuleType

    from w2s_mlflow.tracking.store import Result

EXTRA_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}  # so that the sentence about them is ours
WIDTH = 150
"""Columns where standard error is no terminal, such as under `mlflow run`."""
HEADLINE = ("test/accuracy", "test/weak_accuracy", "test/ceiling_accuracy", "test/pgr", "test/pgr_low", "test/pgr_high")


def main() -> None:
    """Run the command line and exit: 0, or 2 with one sentence for wrong input."""
    signal.signal(signal.SIGTERM, _as_interrupt)  # a scheduler's stop ends a run as Ctrl-C does: closed, not left running
    try:
        arguments = [_dashed(argument) for argument in sys.argv[1:]]
        _check_stage(arguments)
        job = app()(arguments, standalone_mode=False)
        if callable(job):  # run out here, as Typer would turn Ctrl-C into a silent exit; after --help there is none
            job()
    except (ConfigError, typer.TyperException) as error:
        print(f"w2s_mlflow: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("w2s_mlflow: stopped; what was finished is kept and will be reused", file=sys.stderr)
        sys.exit(130)


def app() -> typer.Typer:
    """The Typer application with a command for each file of stages/."""
    found = typer.Typer(
        help="Weak-to-strong generalization experiments on MLflow.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name in options.plugins("stages"):
        stage = options.plugin("stages", name, "the stage")
        found.command(name, help=inspect.getdoc(stage), context_settings=EXTRA_ARGUMENTS)(_command(stage))
    return found


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _dashed(argument: str) -> str:
    """`--train_size` is `--train-size`: so `mlflow run -P train_size=...` passes on what MLproject does not declare."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _check_stage(arguments: list[str]) -> None:
    names = options.plugins("stages")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        raise unknown("the stage", arguments[0], names)


def _command(stage: ModuleType) -> Any:
    """A function with one option per field of the stage's Config, for Typer to read; it gives back the job to run."""

    def command(context: typer.Context, json: bool, **given: str | None) -> Callable[[], None]:
        if context.args:
            _refuse(context.args[0], given)
        values = {name: value for name, value in given.items() if value is not None}
        return functools.partial(_run, stage, values, as_json=json)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(_parameter(name, default, help_) for name, default, help_ in _fields(stage.Config)),
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, annotation=bool, default=_json_option()),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _fields(cls: type) -> list[tuple[str, str, str]]:
    """(name, default as text, sentence) of each option of a Config, those of the losses in place of `loss_options`."""
    sentences = options.sentences(cls)
    found = []
    for field in dataclasses.fields(cls):
        if field.metadata.get("loss_options"):
            found += _loss_fields()
        else:
            found.append((field.name, str(field.default).lower(), sentences[field.name]))
    return found


def _loss_fields() -> list[tuple[str, str, str]]:
    """The options of all losses; one that several share stands once, with what each says of it."""
    found: dict[str, str] = {}
    for loss in options.plugins("losses"):
        kind = options.plugin("losses", loss, "--loss").Options
        for field in dataclasses.fields(kind):
            said = f"({loss}, default {str(field.default).lower()}) {options.sentences(kind)[field.name]}"
            found[field.name] = " ".join(text for text in (found.get(field.name), said) if text)
    return [(name, "the loss's own", text) for name, text in found.items()]


def _parameter(name: str, default: str, help_: str) -> inspect.Parameter:
    # Every option arrives as text: config.parse owns types and wording, whether a value comes from here or from a sweep.
    text = f"{' '.join(help_.split())} [default: {default}]"
    option = typer.Option(None, options.flag(name), help=text, metavar=name.upper(), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=str | None, default=option)


def _json_option() -> Any:
    return typer.Option(False, "--json", help="Print one JSON object on standard output when the stage ends.")


def _refuse(argument: str, given: dict[str, Any]) -> None:
    if argument.startswith("-"):
        raise unknown("the option", argument.split("=")[0], [options.flag(name) for name in given] + ["--json"])
    raise ConfigError(f"options are written --name value, got the lone word {argument!r}")


def _run(stage: ModuleType, values: dict[str, str], *, as_json: bool) -> None:
    config = options.parse(stage.Config, values)
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("w2s_mlflow").setLevel(logging.INFO)
    started = time.perf_counter()
    result = stage.run(config)
    seconds = time.perf_counter() - started
    from w2s_mlflow.tracking import server

    server.close_launch(result.run_id)
    if as_json:
        print(json.dumps(_summary(result, seconds), allow_nan=False))
    _show(result, seconds)


def _summary(result: Result, seconds: float) -> dict[str, Any]:
    inputs = {
        key.removeprefix("w2s.").removesuffix("_run_id"): value
        for key, value in result.tags.items()
        if key.startswith("w2s.") and key.endswith("_run_id")
    }
    return {
        "run_id": result.run_id,
        "inputs": inputs,
        "metrics": result.metrics,
        "seconds": round(seconds, 3),
        "reused": result.reused,
    }


def _show(result: Result, seconds: float) -> None:
    """What a person wants to know at the end: the numbers, where the run is, how to open the UI."""
    from rich.console import Console

    from w2s_mlflow.tracking import server

    console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
    if result.stage in ("sweep", "analyze"):
        _show_table(console, result)
    for name in HEADLINE:
        if name in result.metrics:
            console.print(f"{name:24s} {result.metrics[name]:.3f}", highlight=False)
    how = "reused" if result.reused else "done"
    console.print(f"{how} in {seconds:.1f} s: {result.name}, run {result.run_id}", highlight=False, soft_wrap=True)
    console.print(f"open the UI:  mlflow ui --backend-store-uri {server.where()}", highlight=False, soft_wrap=True)


def _show_table(console: Any, result: Result) -> None:
    """The PGR table, narrow enough for a terminal; the artifacts hold every column and the paired tests."""
    from rich.table import Table

    with result.artifact("tables/pgr.csv").open(newline="", encoding="utf-8") as file:
        rows = [_compact(row) for row in csv.DictReader(file)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print("intervals at 95%; the paired tests are in tables/paired_tests.md of the run", highlight=False)


def _compact(row: dict[str, str]) -> dict[str, str]:
    pgr = {"": "", "undetermined": "undetermined"}.get(row["pgr_status"])
    return {
        "task": row["task"],
        "weak -> strong": "" if row["weak"] == "-" else f"{row['weak']} -> {row['strong']}",
        "head": row["head"],
        "method": f"{row['method']} {row['variant']}".strip(),
        "n": row["n"],
        "weak": _number(row["weak_accuracy"]),
        "accuracy": _interval(row, "accuracy"),
        "ceiling": _number(row["ceiling_accuracy"]),
        "PGR": _interval(row, "pgr") if pgr is None else pgr,
    }


def _interval(row: dict[str, str], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _number(row[name]) + (f" [{_number(low)}, {_number(high)}]" if low and high else "")


def _number(text: str) -> str:
    return f"{float(text):.3f}" if text else ""
