"""The command line: one command per stage, generated from the stage's Config.

Standard output carries one JSON object (`--json`) or nothing; all that is for people goes to standard error. Wrong input
ends in one sentence and exit status 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import itertools
import json
import logging
import signal
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from w2s_mlflow import commands, launch, listing, terminal
from w2s_mlflow import config as options
from w2s_mlflow.config import ConfigError, must, unknown

if TYPE_CHECKING:
    from types import FrameType, ModuleType

    from w2s_mlflow.tracking.results import Result

SWITCHES = {
    "json": commands.JSON,
    "plan": "Say what would be reused and what trained, and how long that would take; start nothing.",
}
REUSE = "exact: a finished run with the same fingerprint is the result; never: nothing that was there before this command is."
ROWS = "Write the rows of a cut without their labels, for people or an API model to label (`student --labels FILE`)."
EXTRA_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}  # so that the sentence about them is ours


def main() -> None:
    """Run the command line and exit: 0, or 2 with one sentence for wrong input."""
    signal.signal(signal.SIGTERM, _as_interrupt)  # a scheduler's stop ends a run as Ctrl-C does: closed, not left running
    try:
        arguments = _switched([_dashed(argument) for argument in sys.argv[1:]])
        _check_stage(arguments)
        arguments = _affirmed(arguments)
        with contextlib.redirect_stdout(sys.stdout if launch.leads() else None):
            job = app(arguments[0] if arguments else None)(arguments, standalone_mode=False)
        if job == launch.STOPPED:  # so Typer ends for a Ctrl-C
            raise KeyboardInterrupt
        if callable(job):  # run out here, as Typer would turn Ctrl-C into a silent exit; after --help there is none
            with launch.together():
                job()
    except (ConfigError, typer.TyperException) as error:
        _end(2, str(error))
    except (KeyboardInterrupt, typer.Abort):
        _end(launch.STOPPED, "stopped; what was finished is kept and will be reused")
    except launch.EndedError as error:
        _end(error.status, str(error))
    except Exception as error:  # the server, the disk: what went wrong outside is a sentence, a fault of ours a traceback
        _end(2, _failure(error))
    launch.leave()


def app(asked: str | None = None) -> typer.Typer:
    """The Typer application with a command for each file of stages/, or for that alone which is asked for."""
    found = typer.Typer(
        help="Weak-to-strong generalization experiments on MLflow.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # it would take "[default: 3]" for markup
        pretty_exceptions_enable=False,
    )
    found.callback()(lambda: None)  # else Typer takes a command that stands alone for the whole application
    stages = options.plugins("stages")
    for name in [asked] if asked in stages else stages:
        stage = options.plugin("stages", name, "the stage")
        found.command(name, help=inspect.getdoc(stage), context_settings=EXTRA_ARGUMENTS)(_command(stage))
    for name, command in commands.COMMANDS.items():
        found.command(name)(command)
    found.command("rows", help=ROWS, context_settings=EXTRA_ARGUMENTS)(_rows_command())
    return found


def _end(status: int, sentence: str) -> NoReturn:
    """Exit; of several processes the first to end says why."""
    if launch.first(status):
        print(f"w2s_mlflow: {sentence}", file=sys.stderr)
    if launch.size() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, to those that are left: they are ending
    launch.leave(failed=True)
    sys.exit(status)


def _failure(error: Exception) -> str:
    from w2s_mlflow.tracking import server

    said = server.failure(error) or _path(error)
    if said is not None:
        return said
    tells = launch.first(1)
    launch.leave(failed=True)
    if tells:
        raise error
    sys.exit(1)


def _path(error: Exception) -> str | None:
    """What is wrong with a path that no file can have."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"a path must be short enough for the file system, got {str(error.filename)[:40]}..."
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path that begins with ~NAME must name a user of this machine"
    return None


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _dashed(argument: str) -> str:
    """`--train_size` is `--train-size`: so `mlflow run -P train_size=...` passes on what MLproject does not declare."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _switched(arguments: list[str]) -> list[str]:
    """`--plan true` is `--plan`: `mlflow run -P plan=true` can only pass values."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1].removeprefix("--") in SWITCHES and argument.lower() in options.BOOLEANS:
            if not options.BOOLEANS[argument.lower()]:
                found.pop()
        else:
            found.append(argument)
    return found


def _affirmed(arguments: list[str]) -> list[str]:
    """`--calibrate` alone is `--calibrate true`."""
    if not arguments or (kind := _kind(arguments[0])) is None:
        return arguments
    either = {options.flag(name) for name, type_ in typing.get_type_hints(kind).items() if type_ is bool}
    found: list[str] = []
    for argument, after in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        found += [argument, "true"] if argument in either and after.startswith("--") else [argument]
    return found


def _kind(name: str) -> type | None:
    """The Config behind a command, where there is one."""
    if name == "rows":
        return listing.Config
    found: type | None = options.plugin("stages", name, "the stage").Config if name in options.plugins("stages") else None
    return found


def _check_stage(arguments: list[str]) -> None:
    names = (*options.plugins("stages"), *commands.COMMANDS, "rows")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        raise unknown("the stage", arguments[0], names)
    launch.check()
    if launch.size() > 1 and arguments and not _is_launched(arguments[0]):
        several = ", ".join(name for name in options.plugins("stages") if _is_launched(name))
        raise must("WORLD_SIZE", f"1 for {arguments[0]}: several processes make one of {several} together", launch.size())


def _is_launched(name: str) -> bool:
    return name in options.plugins("stages") and getattr(options.plugin("stages", name, "the stage"), "LAUNCHED", False)


def _command(stage: ModuleType) -> Any:
    """A function with one option per field of the stage's Config, for Typer to read; it gives back the job to run."""

    def command(context: typer.Context, reuse: str, json: bool, plan: bool, **given: str | None) -> Callable[[], None]:
        if context.args:
            _refuse(context.args[0], (*given, *SWITCHES, "reuse"))
        return functools.partial(_plan if plan else _run, stage, _given(given), reuse, as_json=json)

    reuse = inspect.Parameter(
        "reuse", inspect.Parameter.KEYWORD_ONLY, annotation=str, default=typer.Option("exact", help=REUSE, metavar="REUSE")
    )
    return _signed(command, stage.Config, [reuse, *map(_switch, SWITCHES)])


def _rows_command() -> Any:
    def command(context: typer.Context, json: bool, **given: str | None) -> Callable[[], None]:
        if context.args:
            _refuse(context.args[0], (*given, "json"))
        return functools.partial(commands.rows, _given(given), as_json=json)

    return _signed(command, listing.Config, [_switch("json")])


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _signed(command: Any, cls: type, more: Iterable[inspect.Parameter]) -> Any:
    """The function with the signature that Typer reads: one option per field of a Config, and those of `more`."""
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    fields = [_parameter(name, default, help_) for name, default, help_ in _fields(cls)]
    command.__signature__ = inspect.Signature([context, *fields, *more])
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in command.__signature__.parameters.values()}
    return command


def _fields(cls: type) -> list[tuple[str, str, str]]:
    """(name, default as text, sentence) of each option of a Config, those of the losses in place of `loss_options`."""
    sentences = options.sentences(cls)
    found = []
    for field in dataclasses.fields(cls):
        if field.metadata.get("loss_options"):
            found += _loss_fields()
        else:
            found.append((field.name, str(field.default).lower() or "nothing", sentences[field.name]))
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
    metavar = "[true|false]" if default in ("true", "false") else name.upper()
    option = typer.Option(None, options.flag(name), help=text, metavar=metavar, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=str | None, default=option)


def _switch(name: str) -> inspect.Parameter:
    option = typer.Option(False, options.flag(name), help=SWITCHES[name])
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=bool, default=option)


def _refuse(argument: str, legal: Iterable[str]) -> None:
    if argument.startswith("-"):
        raise unknown("the option", argument.split("=")[0], map(options.flag, legal))
    raise ConfigError(f"options are written --name value, got the lone word {argument!r}")


@contextlib.contextmanager
def _asked(stage: ModuleType, values: dict[str, str], reuse: str) -> Iterator[Any]:
    """The stage's Config, with what is for people on standard error and the reuse policy in force."""
    config = options.parse(stage.Config, values)
    if reuse not in ("exact", "never"):
        raise unknown("--reuse", reuse, ("exact", "never"))
    level = logging.WARNING if launch.leads() else logging.CRITICAL
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=level)
    logging.getLogger("w2s_mlflow").setLevel(logging.INFO if launch.leads() else level)
    from w2s_mlflow.tracking import store

    with store.reuse(reuse):
        yield config


def _run(stage: ModuleType, values: dict[str, str], reuse: str, *, as_json: bool) -> None:
    from w2s_mlflow.tracking import server

    with _asked(stage, values, reuse) as config:
        launch.join()
        started = time.perf_counter()
        result = stage.run(config)
        seconds = time.perf_counter() - started
        if not launch.leads():
            return
        server.close_launch(result.run_id)
    if as_json:
        print(json.dumps(_summary(result, seconds), allow_nan=False))
    terminal.show_result(result, seconds)


def _plan(stage: ModuleType, values: dict[str, str], reuse: str, *, as_json: bool) -> None:
    from w2s_mlflow.tracking import planned, server

    if not launch.leads():
        return
    with _asked(stage, values, reuse) as config, planned.planning() as plan:
        server.launch_run_id()  # the launcher's run is called one also where nothing comes of it
        stage.run(config)
    if as_json:
        print(json.dumps(plan.summary(), allow_nan=False))
    terminal.show_plan(plan)


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
