"""Command line with one command per stage, generated from the stage's Config.

Standard output has one JSON value (`--json`) or nothing; messages for people go to standard error. Invalid input exits with
status 2 and a one-line message.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from w2s_mlflow import config as options
from w2s_mlflow import display, registry
from w2s_mlflow.cli import arguments, catalog, commands, terminal
from w2s_mlflow.distributed import launch
from w2s_mlflow.exceptions import ConfigError, memory_error, must, unknown

if TYPE_CHECKING:
    from types import FrameType, ModuleType

    from w2s_mlflow.tracking.results import Result

REUSE = "exact: reuse finished runs with the same fingerprint; never: ignore runs that started before this command."
ROWS = "Write the rows of a split without labels. People or an API model label them for `student --labels FILE`."
EXTRA_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}  # let our code report unknown options


def main() -> None:
    """Run the command line. Exit with status 0, or for invalid input with status 2 and a one-line message."""
    signal.signal(signal.SIGTERM, _as_interrupt)  # handle a scheduler's SIGTERM like Ctrl-C
    with contextlib.ExitStack() as stack:
        _main(stack)


def _main(stack: contextlib.ExitStack) -> None:
    try:
        argv = arguments.normalized(sys.argv[1:])
        _check_stage(argv)
        if argv and (kind := _config_class(argv[0])):
            argv = arguments.with_boolean_values(arguments.with_current_names(argv, kind), kind)
        with contextlib.redirect_stdout(sys.stdout if launch.is_leader() else None):
            job = app(argv[0] if argv else None)(argv, standalone_mode=False)
        if job == launch.STOPPED:  # Typer returns this status after Ctrl-C
            raise KeyboardInterrupt
        if callable(job):  # run the job outside Typer, which exits silently on Ctrl-C; with --help there is no job
            stack.enter_context(display.guarded_streams())
            _check_home()
            with launch.peer_failure_guard():
                _run_job(job)
    except (ConfigError, typer.TyperException) as error:
        _end(2, str(error))
    except (KeyboardInterrupt, typer.Abort):
        _end(launch.STOPPED, "stopped; finished results are kept and will be reused")
    except launch.PeerExitedError as error:
        _end(error.status, str(error))
    except Exception as error:  # report a failure of the server or the disk in one line, but a bug with a traceback
        _end(2, _failure(error))
    launch.leave()


def _run_job(job: Callable[[], None]) -> None:
    try:
        job()
    except SystemExit as error:  # a file or library has ended the process, perhaps with status 0, before there was a result
        raise ConfigError(f"a file or library that the command uses ended it by SystemExit({error.code})") from error


def _check_home() -> None:
    """Raise ConfigError if this user has no home directory, which MLflow needs when it is imported."""
    try:
        Path.home()
    except RuntimeError as error:
        raise must("HOME", "set, because the user of this process is unknown on this machine", "nothing") from error


def app(command_name: str | None = None) -> typer.Typer:
    """Build the Typer application with all commands. If `command_name` is a stage, leave out the other stages."""
    application = typer.Typer(
        help="Weak-to-strong generalization experiments on MLflow.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # Rich would parse "[default: 3]" as markup
        pretty_exceptions_enable=False,
    )
    application.callback()(lambda: None)  # without it, Typer would run a single command directly, and not accept its name
    stages = registry.plugins("stages")
    for name in [command_name] if command_name in stages else stages:
        stage = registry.plugin("stages", name, "the stage")
        application.command(name, short_help=_first_line(stage), help=inspect.getdoc(stage), context_settings=EXTRA_ARGUMENTS)(
            _command(stage)
        )
    for name, command in commands.COMMANDS.items():
        application.command(name, short_help=_first_line(command))(command)
    application.command("rows", short_help=ROWS, help=ROWS, context_settings=EXTRA_ARGUMENTS)(_rows_command())
    return application


def _first_line(documented: object) -> str:
    """Return the first line of a docstring, for the list of commands. Typer would cut it off at the first period."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _end(status: int, sentence: str) -> NoReturn:
    """Print the message and exit with `status`. In a distributed launch, only the first failed process prints the message."""
    if launch.claims_error_message(status):
        print(f"w2s_mlflow: {display.printable(display.redacted(sentence))}", file=sys.stderr)
    if launch.size() > 1:
        # The launcher may send SIGTERM while this process leaves the process group: ignore the signal.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    launch.leave(failed=True)
    sys.exit(status)


def _failure(error: Exception) -> str:
    from w2s_mlflow.tracking.backend import server

    message = memory_error(error, "the command") or server.failure(error) or _path(error)
    if message is not None:
        return str(message)
    prints_error = launch.claims_error_message(1)
    launch.leave(failed=True)
    if prints_error:
        raise error
    sys.exit(1)


def _path(error: Exception) -> str | None:
    """Return a message if the error is about an invalid path, else None."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"the path {str(error.filename)[:40]}... is too long for the file system"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "NAME in a path that begins with ~NAME must be a user of this machine"
    return None


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _config_class(name: str) -> type | None:
    """Return the Config class of a command, or None if it has none."""
    if name == "rows":
        return catalog.Config
    config_class: type | None = (
        registry.plugin("stages", name, "the stage").Config if name in registry.plugins("stages") else None
    )
    return config_class


def _check_stage(argv: list[str]) -> None:
    names = (*registry.plugins("stages"), *commands.COMMANDS, "rows")
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise unknown("the command", argv[0], names)
    launch.check()
    if launch.size() > 1 and argv and not _is_launched(argv[0]):
        launched = ", ".join(name for name in registry.plugins("stages") if _is_launched(name))
        raise must("WORLD_SIZE", f"1 for {argv[0]} (only {launched} can run in several processes)", launch.size())


def _is_launched(name: str) -> bool:
    return name in registry.plugins("stages") and getattr(registry.plugin("stages", name, "the stage"), "LAUNCHED", False)


def _command(stage: ModuleType) -> Any:
    """Return a Typer command with one option per field of the stage's Config. The command returns the job to run."""

    def command(context: typer.Context, reuse: str, json: bool, plan: bool, **values: str | None) -> Callable[[], None]:
        if context.args:
            arguments.reject(context.args[0], (*values, *arguments.SWITCHES, "reuse"))
        return functools.partial(_plan if plan else _run, stage, arguments.specified(values), reuse, as_json=json)

    reuse = inspect.Parameter(
        "reuse", inspect.Parameter.KEYWORD_ONLY, annotation=str, default=typer.Option("exact", help=REUSE, metavar="REUSE")
    )
    return arguments.with_signature(command, stage.Config, [reuse, *map(arguments.switch, arguments.SWITCHES)])


def _rows_command() -> Any:
    def command(context: typer.Context, json: bool, **values: str | None) -> Callable[[], None]:
        if context.args:
            arguments.reject(context.args[0], (*values, "json"))
        return functools.partial(commands.rows, arguments.specified(values), as_json=json)

    return arguments.with_signature(command, catalog.Config, [arguments.switch("json")])


@contextlib.contextmanager
def _configured(stage: ModuleType, values: dict[str, str], reuse: str) -> Iterator[Any]:
    """Set up logging to standard error, apply the reuse policy, and yield the stage's Config built from `values`."""
    config = options.parse(stage.Config, values)
    if reuse not in ("exact", "never"):
        raise unknown("--reuse", reuse, ("exact", "never"))
    level = logging.WARNING if launch.is_leader() else logging.CRITICAL
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(display.PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=level)
    logging.getLogger("w2s_mlflow").setLevel(logging.INFO if launch.is_leader() else level)
    from w2s_mlflow.tracking import session

    with session.changed(reuse_since=session.reuse_since(reuse)):
        yield config


def _run(stage: ModuleType, values: dict[str, str], reuse: str, *, as_json: bool) -> None:
    from w2s_mlflow.tracking.backend import server

    with _configured(stage, values, reuse) as config:
        launch.join()
        started = time.perf_counter()
        result = stage.run(config)
        seconds = time.perf_counter() - started
        if not launch.is_leader():
            return
        server.close_launch(result.run_id)
    if as_json:
        display.print_json(_summary(result, seconds))
    terminal.show_result(result, seconds)


def _plan(stage: ModuleType, values: dict[str, str], reuse: str, *, as_json: bool) -> None:
    from w2s_mlflow.tracking import session
    from w2s_mlflow.tracking.backend import server

    if not launch.is_leader():
        return
    with _configured(stage, values, reuse) as config, session.planning() as plan:
        server.launch_run_id()  # tag the run that `mlflow run` created as a launch, even if this command only plans
        stage.run(config)
    if as_json:
        display.print_json(plan.summary())
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
