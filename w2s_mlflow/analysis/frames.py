"""Build the frames for tables and figures from runs, and list each excluded run with the rule that excludes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from w2s_mlflow.analysis import (
    collapse,
    debate_frames,
    declared_claims,
    elicited,
    outcomes,
    run_frame,
    scores,
    selection,
    stage_tables,
    task_names,
    variants,
)
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline.runs import CHECKPOINTS
from w2s_mlflow.tables import DETERMINED, ELICITED, ERRORS, FACILITATIONS, LEFT_OUT, OUTCOMES, PROBES, Frames

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

ANSWERS = ("student", "rule")
"""Stages whose runs are the rows of `outcomes`."""
ALONE = ("supervisor", "ceiling", "probe", "errors")
"""Further stages for which only the newest run per seed is kept (selection.one_per_seed)."""


def frames(results: Iterable[Result], codes: Mapping[tuple[str, str], str] | None = None) -> Frames:
    """Build every frame of `Frames` from finished runs, which are ordered from oldest to newest.

    Args:
        codes: error types assigned by a person, by run id and example id.
    """
    import pandas as pd

    given = task_names.with_one_name(list(results))
    sweeps = [result for result in given if result.stage == declared_claims.STAGE]
    diverged = [result for result in given if collapse.is_diverged(result)]
    apart = {result.run_id for result in (*sweeps, *diverged)}
    run_by_id = {result.run_id: result for result in given if result.run_id not in apart}
    pulled = AnalysisRuns(run_by_id, scores.load_scores(run_by_id.values()))
    _leave_out_older(pulled)
    rows = [row for result in pulled.counted() if result.stage in ANSWERS and (row := outcomes.outcome(result, pulled))]
    rows = elicited.with_elicited(outcomes.mean_of_repeats(selection.one_per_seed(rows, pulled)), pulled)
    rows = collapse.count_diverged(rows, diverged)
    outcome_frame = variants.add_config_diff(pd.DataFrame(rows, columns=list(OUTCOMES)))
    for stage in ALONE:
        selection.one_per_seed([selection.identified(result) for result in pulled.counted() if result.stage == stage], pulled)
    facilitations = _facilitations(pulled)
    probe_rows, error_rows = _probes(pulled), _errors(pulled, codes or {})
    debates, alignments = debate_frames.frames(pulled)
    runs = run_frame.frame(pulled)
    is_elicited = runs["run_id"].isin([row["run_id"] for row in rows if row["elicited_correct"] is not None])
    is_determined = (runs["stage"] == "student") & runs["pgr_status"].isin(DETERMINED)
    runs.loc[is_elicited & is_determined, "pgr_status"] = ELICITED
    config_diff = runs.set_index("run_id")[["method_options", "other_options"]]
    probes, errors = (
        pd.DataFrame(records, columns=[name for name in columns if name not in config_diff]).join(config_diff, on="run_id")[
            list(columns)
        ]
        for records, columns in ((probe_rows, PROBES), (error_rows, ERRORS))
    )
    left_out = [(run_id, run_by_id[run_id].name, *exclusion) for run_id, exclusion in pulled.left_out.items()]
    left_out += [(run.run_id, run.name, "diverged", "its loss was not finite, so it has no predictions") for run in diverged]
    return Frames(
        outcome_frame,
        runs,
        pd.DataFrame(left_out, columns=list(LEFT_OUT)),
        probes,
        errors,
        facilitations,
        debates,
        alignments,
        declared_claims.frame(sweeps),
    )


def _probes(pulled: AnalysisRuns) -> list[dict[str, Any]]:
    """Return the rows of the tables that the probe runs wrote."""
    import pandas as pd

    return _own_rows("probe", lambda result: pd.read_csv(result.artifact(stage_tables.PROBES)), pulled)


def _errors(pulled: AnalysisRuns, codes: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """Return the errors of all runs of the stage `errors`, with the types assigned by a person.

    Raises:
        ConfigError: a type is assigned to an error that none of the runs has.
    """
    rows = _own_rows("errors", stage_tables.read_errors, pulled)
    if unknown := set(codes) - {(row["run_id"], row["id"]) for row in rows}:
        run_id, id_ = min(unknown)
        raise ConfigError(f"--error-annotations must name only errors of the analysed runs, got id {id_!r} of run {run_id!r}")
    return [row | {"annotation": codes.get((row["run_id"], row["id"]), "")} for row in rows]


def _own_rows(stage: str, read: Callable[[Result], pd.DataFrame], pulled: AnalysisRuns) -> list[dict[str, Any]]:
    """Return the rows of the tables that a stage's runs wrote, with columns that identify the run and its student."""

    def with_run(result: Result) -> Iterator[dict[str, Any]]:
        identity = {name: result.params[name] for name in ("task", "weak", "strong", "method", "seed")}
        identity |= {"checkpoints": result.tags.get(CHECKPOINTS, "")}
        identity |= {"run_id": result.run_id, "student_run_id": result.tags["w2s.student_run_id"]}
        for row in read(result).to_dict("records"):
            yield identity | {str(name): value for name, value in row.items()}

    return pulled.rows(stage, with_run)


def _facilitations(pulled: AnalysisRuns) -> pd.DataFrame:
    """Return one row per facilitated weak model that has a test report. Runs replaced by a newer one are excluded."""
    import pandas as pd

    rows = [row for result in pulled.counted() if result.stage == "facilitate" and (row := _facilitation(result, pulled))]
    frame = pd.DataFrame(selection.one_per_seed(rows, pulled), columns=list(FACILITATIONS))
    return variants.add_config_diff(frame, stage="facilitate")


def _facilitation(result: Result, pulled: AnalysisRuns) -> dict[str, Any] | None:
    """Return one row of `facilitations`, computed from stored predictions, or None if the run is excluded."""
    run_ids = [result.run_id, *(result.tags.get(f"w2s.{role}_run_id", "") for role in ("weak", "strong"))]
    if "test/accuracy" not in result.metrics:
        pulled.leave_out(result, "not reported", "it has no test report (--eval-split none or selection)")
        return None
    scores = [pulled.scores.get(run_id, f"the test predictions of run {run_id} are missing") for run_id in run_ids]
    if damaged := [message for message in scores if isinstance(message, str)]:
        pulled.leave_out(result, "damaged", damaged[0])
        return None
    facilitated, weak, strong = (item for item in scores if isinstance(item, Scores))
    numbers = {f"{role}_accuracy": other.metrics["accuracy"] for role, other in (("weak", weak), ("strong", strong))}
    agreements = {"agreement": strong, "weak_agreement": weak}
    numbers |= {name: float((facilitated.answer_N == other.answer_N).mean()) for name, other in agreements.items()}
    if contradiction := outcomes.contradiction(result, facilitated, numbers):
        pulled.leave_out(result, "contradicted", contradiction)
        return None
    row = selection.identified(result) | {"iteration": int(result.params["iteration"]), "gold": result.tags.get("w2s.gold", "")}
    return row | numbers | {"accuracy": facilitated.metrics["accuracy"]}


def _leave_out_older(pulled: AnalysisRuns) -> None:
    """Exclude all runs for which there is a newer run with the same fingerprint."""
    newest = {result.fingerprint: result for result in pulled.runs.values()}
    for result in pulled.runs.values():
        if newest[result.fingerprint] is not result:
            pulled.leave_out(
                result, "made again", f"the newer run {newest[result.fingerprint].run_id} has the same fingerprint"
            )
