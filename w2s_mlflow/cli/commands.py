"""Commands that are not stages: list tasks, models and runs; import, compare and explain runs; write rows; judge debates; send
what a server did not store; check the machine and the server."""

from __future__ import annotations

import dataclasses
import functools
import getpass
from collections.abc import Callable, Mapping
from typing import Any

import typer

from w2s_mlflow import config as options
from w2s_mlflow import display
from w2s_mlflow.cli import terminal
from w2s_mlflow.exceptions import ConfigError, must

JSON = "Print one JSON value on standard output when the command ends."
Job = Callable[[], None]


def why(
    run: str = typer.Argument(metavar="RUN", help="Id or name of a run. If several runs have this name, the newest is used."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Show the parts of the fingerprint in which RUN differs from the most similar finished run of its stage."""
    return functools.partial(_why, run, as_json=json)


def tasks(
    check: bool = typer.Option(False, "--check", help="Load each task whose data is found, and report its sizes."),
    data_dir: str = typer.Option(
        "", "--data-dir", help="Directory with a mirror of public data sets. Default: W2S_DATA_DIR, else the Hugging Face hub."
    ),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """List the tasks. With --check, load each task and describe its data."""
    return functools.partial(_check, data_dir or None, as_json=json) if check else functools.partial(_tasks, as_json=json)


def models(json: bool = typer.Option(False, "--json", help=JSON)) -> Job:
    """List the models that can be given by name."""
    return functools.partial(_models, as_json=json)


def runs(
    filter: str = typer.Option("", "--filter", help="MLflow filter string. Empty: all finished runs."),
    experiments: str = typer.Option("", "--experiments", help="Comma-separated names of experiments. Empty: the current one."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """List finished students and rules, averaged over seeds (mean, interval, n) and sorted by accuracy within each task."""
    return functools.partial(_runs, filter, experiments, as_json=json)


def import_(
    file: str = typer.Argument(metavar="FILE", help="CSV file of published results (docs/how-to/import.md)."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Import published results: make a run of each row of FILE, for `analyze` and `runs`.

    FILE has the columns task, role (supervisor, student or ceiling), method (of a student), seed and accuracy, and optionally
    weak, strong, correct and rows. A row that was imported before does not make a second run."""
    return functools.partial(_import, file, as_json=json)


def compare(
    first: str = typer.Argument(metavar="RUN", help="Id or name of a run. If several runs have this name, the newest is used."),
    second: str = typer.Argument(metavar="RUN", help="Another run, scored on the same test rows."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Compare two runs on the same test rows: difference of accuracy, its interval, and the rows that only one got right."""
    return functools.partial(_compare, first, second, as_json=json)


def judge(
    run: str = typer.Argument(metavar="RUN", help="Id or name of a debate run."),
    name: str = typer.Option("", "--name", help="Your name as a judge. Empty: your user name on this machine."),
    blind: bool = typer.Option(False, "--blind", help="Call the sides A and B, to hide which is the strong model."),
    review: bool = typer.Option(
        False, "--review", help="Put the debates into a review queue of the MLflow UI instead of asking here."
    ),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Judge the debates of RUN that you have not judged yet.

    Each verdict is added at once to the MLflow trace of the debate, in the format of the MLflow UI. You can stop at any time.
    """
    return functools.partial(_judge, run, name, blind=blind, review=review, as_json=json)


def upload(
    wait: float = typer.Option(60.0, "--wait", help="Longest time in seconds to wait for the server, for each run."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Send the runs that are complete on this machine, but that their tracking server did not store in time.

    Only runs of the server in MLFLOW_TRACKING_URI are sent, of all its experiments. The command ends with status 2 if a run is
    left."""
    return functools.partial(_upload, wait, as_json=json)


def doctor(
    data: bool = typer.Option(False, "--data", help="Also load the data of each task. This takes minutes."),
    json: bool = typer.Option(False, "--json", help=JSON),
) -> Job:
    """Check this machine and the tracking server, and say what to do about each fault. No fault is mended.

    The command ends with status 2 if a check has found an error."""
    return functools.partial(_doctor, data=data, as_json=json)


COMMANDS: Mapping[str, Callable[..., Job]] = {
    "tasks": tasks,
    "models": models,
    "runs": runs,
    "import": import_,
    "compare": compare,
    "why": why,
    "judge": judge,
    "upload": upload,
    "doctor": doctor,
}
"""Commands by name, except `rows`, which is generated from a Config like the stage commands."""


def rows(values: Mapping[str, str], *, as_json: bool) -> None:
    """Write the rows of a split without labels, and show the number of rows in each part."""
    from w2s_mlflow.cli import catalog

    config = options.parse(catalog.Config, values)
    counts = catalog.write_rows(config)
    if as_json:
        display.print_json({"out": config.out, "rows": counts})
    terminal.show_table([{"part": part, "rows": count} for part, count in counts.items()])


def _why(run: str, *, as_json: bool) -> None:
    from w2s_mlflow.tracking import why as explaining

    explanation = explaining.explain(run)
    if as_json:
        display.print_json(dataclasses.asdict(explanation))
    terminal.show_why(explanation)


def _runs(filter_: str, experiments: str, *, as_json: bool) -> None:
    from w2s_mlflow.analysis import leaderboard

    rows = leaderboard.board(filter_, experiments)
    if as_json:
        display.print_json(rows)
    terminal.show_pgr([{name: "" if value is None else str(value) for name, value in row.items()} for row in rows])


def _import(file: str, *, as_json: bool) -> None:
    from w2s_mlflow.analysis import imported

    outcome = imported.import_file(file)
    if as_json:
        display.print_json(dataclasses.asdict(outcome))
    terminal.show_line(outcome.describe(file))


def _compare(first: str, second: str, *, as_json: bool) -> None:
    from w2s_mlflow.analysis import leaderboard

    comparison = leaderboard.compare(first, second)
    if as_json:
        display.print_json(dataclasses.asdict(comparison))
    terminal.show_table(leaderboard.describe(comparison))


def _judge(run: str, name: str, *, blind: bool, review: bool, as_json: bool) -> None:
    from w2s_mlflow.tracking import human_feedback

    if review:
        terminal.show_line(
            f"the debates are in the review queue {human_feedback.review(run)!r} of the experiment in the MLflow UI"
        )
    else:
        reviewer = name or _user_name()
        for debate in human_feedback.unjudged(run, reviewer):
            winner = terminal.ask_winner(debate, blind=blind)
            if winner is None:
                break
            human_feedback.log(debate, winner, reviewer)
    assessments = human_feedback.pull(run)
    if as_json:
        display.print_json(
            {
                "run_id": assessments.run_id,
                "debates": len(assessments.votes),
                "judged": assessments.judged,
                "votes": assessments.votes,
            }
        )
    terminal.show_line(assessments.describe())


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:  # Python 3.13 raises OSError, earlier versions KeyError
        raise must("name", "given, because the user of this process has no name on this machine", "none") from error


def _upload(wait: float, *, as_json: bool) -> None:
    from w2s_mlflow.tracking import recovery

    if not 0 <= wait < float("inf"):
        raise must("wait", "a number of seconds, 0 or more", wait)
    table = []
    for done in recovery.deliver_all(wait):
        table.append(dataclasses.asdict(done))
        if not as_json:
            terminal.show_line(done.describe())
    if as_json:
        display.print_json(table)
    if left := sum(row["outcome"] in ("waiting", "damaged", "refused") for row in table):
        raise ConfigError(f"{left} of {len(table)} runs on this machine were not sent")
    terminal.show_line(f"{len(table)} runs were waiting on this machine" if table else "no run is waiting on this machine")


def _doctor(*, data: bool, as_json: bool) -> None:
    from w2s_mlflow.cli import doctor as checks

    table = [dataclasses.asdict(check) for check in checks.all_checks(data=data)]
    _show(table, terminal.show_table, as_json=as_json)
    if errors := sum(row["state"] == checks.ERROR for row in table):
        raise ConfigError(f"{errors} of {len(table)} checks found an error")


def _tasks(*, as_json: bool) -> None:
    from w2s_mlflow.cli import catalog

    _show(catalog.task_rows(), terminal.show_table, as_json=as_json)


def _check(data_dir: str | None, *, as_json: bool) -> None:
    from w2s_mlflow.cli import catalog

    _show(list(catalog.check_tasks(data_dir)), terminal.show_checked, as_json=as_json)


def _models(*, as_json: bool) -> None:
    from w2s_mlflow.cli import catalog

    _show(catalog.model_rows(), terminal.show_table, as_json=as_json)


def _show(table: list[dict[str, Any]], show: Callable[[list[dict[str, Any]]], None], *, as_json: bool) -> None:
    if as_json:
        display.print_json(table)
    else:
        show(table)
