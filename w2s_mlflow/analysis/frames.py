"""Build the frames for tables and figures from runs, and list each excluded run with the rule that excludes it."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import tasks
from w2s_mlflow.analysis import (
    collapse,
    debate_frames,
    declared_claims,
    elicited,
    scores,
    selection,
    stage_tables,
    task_names,
    variants,
)
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.analysis.variants import IDENTITY
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.metrics import METRICS
from w2s_mlflow.pipeline import scoring
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.pipeline.runs import CHECKPOINTS, TUNED_ON_GOLD
from w2s_mlflow.records import GIVEN, Floats, JoinError, read_predictions
from w2s_mlflow.tables import DETERMINED, ELICITED, ERRORS, FACILITATIONS, LEFT_OUT, OUTCOMES, PROBES, RUNS, Frames

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

ANSWERS = ("student", "rule")
"""Stages whose runs are the rows of `outcomes`."""
ALONE = ("supervisor", "ceiling", "probe", "errors")
"""Further stages for which only the newest run per seed is kept (selection.one_per_seed)."""
OF_ANSWERS = (
    *("groups", "gold", "answer", "weak_answer", "ceiling_answer", "correct", "weak_correct", "ceiling_correct"),
    *("probabilities", "weak_probabilities", "ceiling_probabilities"),
)
"""Columns of `outcomes` that are None for imported runs, which have no predictions."""
LABEL_ACCURACY = "transfer/label_accuracy"
"""Metric of a student: the accuracy of its training labels on `transfer`, where the task has ground truth."""
TOLERANCE = 1e-9
DOMAINS = {"chess": "chess", "puzzles": "chess", "chess_preference": "reward modelling"}
"""The paper's domain of a task or of a task family. Other tasks are reward modelling if they have its head, otherwise NLP."""
FORWARD_AND_BACK = 6
"""Number of floating-point operations per parameter and token in a training step (Kaplan et al. 2020, section 2.1)."""


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
    rows = [row for result in pulled.counted() if result.stage in ANSWERS and (row := _outcome(result, pulled))]
    rows = elicited.with_elicited(_mean_of_repeats(selection.one_per_seed(rows, pulled)), pulled)
    rows = collapse.count_diverged(rows, diverged)
    outcomes = variants.add_config_diff(pd.DataFrame(rows, columns=list(OUTCOMES)))
    for stage in ALONE:
        selection.one_per_seed([selection.identified(result) for result in pulled.counted() if result.stage == stage], pulled)
    facilitations = _facilitations(pulled)
    probe_rows, error_rows = _probes(pulled), _errors(pulled, codes or {})
    debates, alignments = debate_frames.frames(pulled)
    runs = _runs(pulled)
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
        outcomes,
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
    if contradiction := _contradiction(result, facilitated, numbers):
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


# --- outcomes ---------------------------------------------------------------------------------------------------------


def _outcome(result: Result, pulled: AnalysisRuns) -> dict[str, Any] | None:
    """Return one row of `outcomes`, computed from stored predictions, or None if the run is excluded."""
    if "test/accuracy" not in result.metrics:
        pulled.leave_out(result, "not reported", "it has no test report (--eval-split none or selection)")
        return None
    if result.imported:
        return _imported_outcome(result, pulled)
    scored = pulled.scores.get(result.run_id, "its test predictions are missing")
    if isinstance(scored, str):
        pulled.leave_out(result, "damaged", scored)
        return None
    row = selection.identified(result) | {"groups": scored.rows.groups}
    row |= _of_gold(result) | {"domain": _domain(row["task"]), "parameters": result.metrics.get("model/parameters", math.nan)}
    row |= {"correct": scored.correct_N(), "answer": scored.answer_N, "gold": scored.rows.gold_N}
    row |= {"probabilities": scored.probabilities_NC, **scored.metrics}
    row |= _references(result, scored, pulled) | {"ceiling_failed": False}
    row["collapsed"] = result.stage == "student" and collapse.has_collapsed(result)
    if row["ceiling_correct"] is not None:
        row["ceiling_failed"] = _ceiling_failed(result, row)
    if contradiction := _contradiction(result, scored, _reported(row)):
        pulled.leave_out(result, "contradicted", contradiction)
        return None
    return row


def _of_gold(result: Result) -> dict[str, Any]:
    """Return the columns that tell how ground truth may have entered a run, besides its training labels."""
    file_accuracy = result.metrics.get(LABEL_ACCURACY, math.nan) if GIVEN in result.digests else math.nan
    return {"tuned_on_gold": result.tags.get(TUNED_ON_GOLD, ""), "file_accuracy": file_accuracy}


def _imported_outcome(result: Result, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return the row of an imported student, with the imported accuracies. Columns that need answers are None or NaN."""
    row = selection.identified(result) | dict.fromkeys(OF_ANSWERS) | {"domain": NONE}
    row |= {"accuracy": result.metrics["test/accuracy"], "parameters": math.nan, "agreement": math.nan}
    row |= _of_gold(result)
    for role in ("weak", "ceiling"):
        reference = pulled.runs.get(result.tags.get(f"w2s.{role}_run_id", ""))
        row[f"{role}_accuracy"] = reference.metrics["test/accuracy"] if reference else math.nan
    return row | {"ceiling_failed": bool(row["ceiling_accuracy"] < row["weak_accuracy"]), "collapsed": False}


def _mean_of_repeats(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average the accuracies of imported students with the same options and seed, so that each seed has one row."""
    repeats: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (*(row[name] for name in IDENTITY if name != "repeat"), row["settings"])
        repeats.setdefault(key, []).append(row)
    return [group[0] | {"accuracy": statistics.fmean(row["accuracy"] for row in group)} for group in repeats.values()]


def _references(result: Result, scored: Scores, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return the columns about supervisor and ceiling. They are None or NaN for a model not scored on the same rows."""
    row: dict[str, Any] = {"agreement": math.nan}
    for role in ("weak", "ceiling"):
        probabilities_NC = _probabilities(result, role, scored, pulled)
        answer_N = None if probabilities_NC is None else probabilities_NC.argmax(axis=1).astype(np.int16)
        correct_N = None if answer_N is None else answer_N == scored.rows.gold_N
        row |= {f"{role}_probabilities": probabilities_NC, f"{role}_answer": answer_N, f"{role}_correct": correct_N}
        row[f"{role}_accuracy"] = math.nan if correct_N is None else float(correct_N.mean())
    if row["weak_answer"] is not None:
        row["agreement"] = float((scored.answer_N == row["weak_answer"]).mean())
    return row


def _probabilities(result: Result, role: str, scored: Scores, pulled: AnalysisRuns) -> Floats | None:
    """Return the probabilities of the run's ceiling or supervisor, or the external labels; None if these lack a test row."""
    if role == "weak" and GIVEN in result.digests:
        try:
            return read_predictions(result.artifact(GIVEN)).of(scored.rows.ids)
        except (ConfigError, JoinError):
            return None
    other = pulled.scores.get(result.tags.get(f"w2s.{role}_run_id", ""))
    return other.probabilities_NC if isinstance(other, Scores) and other.rows.ids == scored.rows.ids else None


def _ceiling_failed(result: Result, row: Mapping[str, Any]) -> bool:
    """Return whether a student's ceiling is near chance on its training rows, or below the supervisor on the test rows."""
    tag = result.tags.get(scoring.CEILING_FAILED, "no")
    return scoring.NEAR_CHANCE in tag or bool(row["ceiling_accuracy"] < row["weak_accuracy"])


def _reported(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that compare a student with its supervisor and ceiling."""
    from w2s_mlflow import stats

    metrics = {name: row[name] for name in ("agreement", "weak_accuracy", "ceiling_accuracy")}
    return metrics | {"pgr": stats.pgr(row["weak_accuracy"], row["accuracy"], row["ceiling_accuracy"])}


def _contradiction(result: Result, scored: Scores, comparisons: Mapping[str, float]) -> str:
    """Describe the first logged metric that the stored predictions contradict; return an empty string if there is none."""
    logged_before = {name: value for name, value in scored.metrics.items() if f"test/{name}" in result.metrics}
    # Check only the metrics that the run logged: others may have been added to the code later.
    for name, value in {**logged_before, **comparisons}.items():
        logged = result.metrics.get(f"test/{name}", math.nan)
        if math.isfinite(value) and not abs(logged - value) <= TOLERANCE:
            return f"it reports test/{name} = {logged}, but its stored predictions give {value}"
    return ""


@functools.cache
def _domain(task: str) -> str:
    try:
        spec = tasks.find(task)
    except ConfigError:  # the task of an old run may no longer exist
        return "NLP"
    other = "reward modelling" if spec.head == "reward" else "NLP"
    return DOMAINS.get(spec.name, DOMAINS.get(spec.family, other))


# --- runs -------------------------------------------------------------------------------------------------------------


def _runs(pulled: AnalysisRuns) -> pd.DataFrame:
    """Return the frame `runs`. Its columns `method_options` and `other_options` list options that differ within a stage."""
    import pandas as pd

    # `runs` has no columns for iteration and repeat; keep them in `settings`, so that they distinguish the runs of one seed.
    columns = [name for name in IDENTITY if name not in ("iteration", "repeat")]
    rows = [_run(result, pulled) | {"settings": variants.settings(result, columns)} for result in pulled.counted()]
    frame = pd.DataFrame(
        rows, columns=[*(name for name in RUNS if name not in ("method_options", "other_options")), "settings"]
    )
    return variants.add_config_diff(frame, of=["stage"])[list(RUNS)]


def _run(result: Result, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return one row of `runs`, for a run of any stage."""
    scores = pulled.scores.get(result.run_id)
    metrics = scores.metrics if isinstance(scores, Scores) else {}
    if result.imported:
        metrics = {"accuracy": result.metrics["test/accuracy"]}
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY}
    row["checkpoints"] = result.tags.get(CHECKPOINTS, "")
    domain = NONE if result.imported else _domain(row["task"])
    row |= {"run_id": result.run_id, "name": result.name, "stage": result.stage, "domain": domain}
    row |= {name: metrics.get(name, math.nan) for name in METRICS}
    row |= {"pgr": result.metrics.get("test/pgr", math.nan), "pgr_status": result.tags.get(scoring.PGR_STATUS, "")}
    row |= {
        name: result.tags.get(f"w2s.{name}", "")
        for name in ("ceiling_failed", "label_gap", "vs_human", "gold", "fingerprint", "data")
    }
    row |= {"reads": {name.removeprefix("gold/"): n for name, n in result.metrics.items() if name.startswith("gold/")}}
    return row if result.imported else row | _cost(result) | _total_cost(result, pulled)


def _cost(result: Result) -> dict[str, float]:
    tokens, parameters = result.metrics.get("train/tokens", 0.0), result.metrics.get("model/parameters", 0.0)
    flops = FORWARD_AND_BACK * parameters * tokens
    return {"seconds": result.seconds, "tokens": tokens, "parameters": parameters, "flops": flops}


def _total_cost(result: Result, pulled: AnalysisRuns) -> dict[str, float]:
    """Return the total cost of the run and all runs that it was made from, each counted once."""
    used = [_cost(other) for other in pulled.made_from(result)]
    return {f"total_{name}": sum(other[name] for other in used) for name in ("seconds", "tokens", "flops")}
