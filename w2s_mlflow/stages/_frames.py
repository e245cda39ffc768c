"""Runs -> the frames that tables and figures are made from; what does not count is named with the rule that says so."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from w2s_mlflow import tasks
from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import GIVEN, JoinError, read_predictions
from w2s_mlflow.stages import _debate_frames, _gold, _scores, _scoring, _variants, errors, facilitate, probe
from w2s_mlflow.stages._options import NONE
from w2s_mlflow.stages._scores import Scores
from w2s_mlflow.stages._variants import IDENTITY
from w2s_mlflow.tables import ERRORS, FACILITATIONS, LABEL, LEFT_OUT, OUTCOMES, PROBES, RUNS, Frames

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

ANSWERS = ("student", "rule")
"""Stages whose runs are outcomes: answers to be compared with a supervisor's and a ceiling's."""
TOLERANCE = 1e-9
DOMAINS = {"chess": "chess", "puzzles": "chess", "preferences": "reward modelling"}
"""The paper's three domains, by a task's family; every other one is NLP."""
FORWARD_AND_BACK = 6
"""Floating-point operations per parameter and token of a training step (Kaplan et al. 2020, section 2.1)."""


@dataclass
class _Pulled:
    """The runs that are looked at, what their predictions say, and what was left out so far."""

    runs: Mapping[str, Result]
    scores: Mapping[str, Scores | str]
    left_out: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By run id the rule and its reason."""

    def leave_out(self, result: Result, rule: str, reason: str) -> None:
        """The first rule that applies is the one that is named."""
        self.left_out.setdefault(result.run_id, (rule, reason))

    def counted(self) -> list[Result]:
        """What is not left out."""
        return [result for result in self.runs.values() if result.run_id not in self.left_out]


def frames(found: Iterable[Result], codes: Mapping[tuple[str, str], str] | None = None) -> Frames:
    """Every frame of `Frames`, from finished runs, the oldest first.

    Args:
        codes: by run and id the type that a person gave an error.
    """
    import pandas as pd

    every = {result.run_id: result for result in found}
    pulled = _Pulled(every, _scores.of(every.values()))
    _leave_out_older(pulled)
    rows = [row for result in pulled.counted() if result.stage in ANSWERS and (row := _outcome(result, pulled))]
    outcomes = pd.DataFrame(_one_per_seed(rows, pulled), columns=list(OUTCOMES))
    variants, settings = (
        _variants.differing(outcomes, keys, own) for keys, own in ((LABEL[:5], True), (["task", "head"], False))
    )
    outcomes = outcomes.assign(variant=variants, setting=settings)
    taught = _facilitations(pulled)
    runs = pd.DataFrame([_run(result, pulled) for result in pulled.counted()], columns=list(RUNS))
    probes = pd.DataFrame(_probes(pulled), columns=list(PROBES))
    wrong = pd.DataFrame(_errors(pulled, codes or {}), columns=list(ERRORS))
    debated, aligned = _debate_frames.frames(pulled.counted(), pulled.scores, pulled.leave_out)
    left_out = [(run_id, every[run_id].name, *why) for run_id, why in pulled.left_out.items()]
    return Frames(outcomes, runs, pd.DataFrame(left_out, columns=list(LEFT_OUT)), probes, wrong, taught, debated, aligned)


def _probes(pulled: _Pulled) -> list[dict[str, Any]]:
    """The rows of every probe run's own table."""
    import pandas as pd

    return _own_rows("probe", lambda result: pd.read_csv(result.artifact(probe.PROBES)), pulled)


def _errors(pulled: _Pulled, codes: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """The rows of every run of errors, each with what a person says of it. Raises ConfigError for a code of no such row."""
    rows = _own_rows("errors", errors.read, pulled)
    if unknown := set(codes) - {(row["run_id"], row["id"]) for row in rows}:
        run_id, id_ = min(unknown)
        raise ConfigError(f"--coded must name errors of the runs that are analysed, got id {id_!r} of run {run_id!r}")
    return [row | {"coded": codes.get((row["run_id"], row["id"]), "")} for row in rows]


def _own_rows(stage: str, read: Callable[[Result], pd.DataFrame], pulled: _Pulled) -> list[dict[str, Any]]:
    """The rows of the tables that the runs of a stage have made, with the run and its student."""
    rows: list[dict[str, Any]] = []
    for result in [result for result in pulled.counted() if result.stage == stage]:
        said = {name: result.params[name] for name in ("task", "weak", "strong", "method", "seed")}
        said |= {"run_id": result.run_id, "student_run_id": result.tags["w2s.student_run_id"]}
        try:
            rows += [said | {str(name): value for name, value in row.items()} for row in read(result).to_dict("records")]
        except ConfigError as error:
            pulled.leave_out(result, "damaged", str(error))
    return rows


def _facilitations(pulled: _Pulled) -> pd.DataFrame:
    """One row per facilitated weak model with a report; of runs that differ in nothing but code or data, the newest."""
    import pandas as pd

    rows = [row for result in pulled.counted() if result.stage == "facilitate" and (row := _taught(result, pulled))]
    found = pd.DataFrame(_one_per_seed(rows, pulled), columns=list(FACILITATIONS))
    own, shared = (_variants.differing(found, LABEL[:5], own, _variants.defaults(facilitate.Config)) for own in (True, False))
    return found.assign(variant=own, setting=shared)


def _taught(result: Result, pulled: _Pulled) -> dict[str, Any] | None:
    """One row of `facilitations`, its numbers from stored predictions; None for one that is left out."""
    beside = [result.run_id, *(result.tags.get(f"w2s.{role}_run_id", "") for role in ("weak", "strong"))]
    if "test/accuracy" not in result.metrics:
        pulled.leave_out(result, "not reported", "it has no test report (--report none or selection)")
        return None
    scores = [pulled.scores.get(run_id, f"run {run_id} has lost its test predictions") for run_id in beside]
    if damaged := [said for said in scores if isinstance(said, str)]:
        pulled.leave_out(result, "damaged", damaged[0])
        return None
    own, weak, strong = (found for found in scores if isinstance(found, Scores))
    numbers = {f"{role}_accuracy": other.metrics["accuracy"] for role, other in (("weak", weak), ("strong", strong))}
    agreements = {"agreement": strong, "weak_agreement": weak}
    numbers |= {name: float((own.answer_N == other.answer_N).mean()) for name, other in agreements.items()}
    if wrong := _contradiction(result, own, numbers):
        pulled.leave_out(result, "contradicted", wrong)
        return None
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY} | {"run_id": result.run_id, **numbers}
    row |= {name: int(result.params[name]) for name in ("train_size", "test_size", "turn")}
    row |= {"data": result.tags.get("w2s.data", ""), "gold": result.tags.get("w2s.gold", "")}
    return row | {"settings": _variants.settings(result), "accuracy": own.metrics["accuracy"]}


def _leave_out_older(pulled: _Pulled) -> None:
    """Of several runs of one fingerprint the newest counts."""
    newest = {result.fingerprint: result for result in pulled.runs.values()}
    for result in pulled.runs.values():
        if newest[result.fingerprint] is not result:
            pulled.leave_out(result, "made again", f"run {newest[result.fingerprint].run_id} has the same fingerprint")


# --- outcomes ---------------------------------------------------------------------------------------------------------


def _outcome(result: Result, pulled: _Pulled) -> dict[str, Any] | None:
    """One row of `outcomes`: what the run says of itself and what its predictions give; None for one that is left out."""
    if "test/accuracy" not in result.metrics:
        pulled.leave_out(result, "not reported", "it has no test report (--report none or selection)")
        return None
    own = pulled.scores.get(result.run_id, "it has lost its test predictions")
    if isinstance(own, str):
        pulled.leave_out(result, "damaged", own)
        return None
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY}
    row |= {name: int(result.params[name]) for name in ("train_size", "test_size")}
    row |= {
        "run_id": result.run_id,
        "settings": _variants.settings(result),
        "groups": own.rows.groups,
        "domain": _domain(row["task"]),
    }
    row |= {"correct": own.correct_N(), "answer": own.answer_N, "gold": own.rows.gold_N, **own.metrics}
    row |= {"parameters": result.metrics.get("model/parameters", math.nan), "data": result.tags.get("w2s.data", "")}
    row |= _beside(result, own, pulled) | {"ceiling_failed": False}
    if row["ceiling_correct"] is not None:
        row["ceiling_failed"] = _ceiling_failed(result, row)
    if wrong := _contradiction(result, own, _reported(row)):
        pulled.leave_out(result, "contradicted", wrong)
        return None
    return row


def _beside(result: Result, own: Scores, pulled: _Pulled) -> dict[str, Any]:
    """The columns that compare with the supervisor and the ceiling; None, or not a number, without one on the same rows."""
    row: dict[str, Any] = {"agreement": math.nan}
    for role in ("weak", "ceiling"):
        answer_N = _answers(result, role, own, pulled)
        correct_N = None if answer_N is None else answer_N == own.rows.gold_N
        row |= {f"{role}_answer": answer_N, f"{role}_correct": correct_N}
        row[f"{role}_accuracy"] = math.nan if correct_N is None else float(correct_N.mean())
    if row["weak_answer"] is not None:
        row["agreement"] = float((own.answer_N == row["weak_answer"]).mean())
    return row


def _answers(result: Result, role: str, own: Scores, pulled: _Pulled) -> Any:
    """The answers of a student's supervisor (or of labels from outside, where they cover its test rows), or of its ceiling."""
    if role == "weak" and GIVEN in result.digests:
        try:
            return read_predictions(result.artifact(GIVEN)).of(own.rows.ids).argmax(axis=1)
        except (ConfigError, JoinError):
            return None
    other = pulled.scores.get(result.tags.get(f"w2s.{role}_run_id", ""))
    return other.answer_N if isinstance(other, Scores) and other.rows.ids == own.rows.ids else None


def _ceiling_failed(result: Result, row: Mapping[str, Any]) -> bool:
    """By the two rules of `w2s.ceiling_failed`, of which the one on the reported split is computed anew."""
    tag = result.tags.get(_gold.CEILING_FAILED, "no")
    return _gold.NEAR_CHANCE in tag or bool(row["ceiling_accuracy"] < row["weak_accuracy"])


def _reported(row: Mapping[str, Any]) -> dict[str, float]:
    """What a student reports beside its own metrics."""
    from w2s_mlflow import stats

    found = {name: row[name] for name in ("agreement", "weak_accuracy", "ceiling_accuracy")}
    return found | {"pgr": stats.pgr(row["weak_accuracy"], row["accuracy"], row["ceiling_accuracy"])}


def _contradiction(result: Result, own: Scores, beside: Mapping[str, float]) -> str:
    """A number that the run reports and its stored predictions do not give, or nothing."""
    for name, value in {**own.metrics, **beside}.items():
        logged = result.metrics.get(f"test/{name}", math.nan)
        if math.isfinite(value) and not abs(logged - value) <= TOLERANCE:
            return f"it reports test/{name} = {logged}, but its stored predictions give {value}"
    return ""


def _one_per_seed(rows: Sequence[dict[str, Any]], pulled: _Pulled) -> list[dict[str, Any]]:
    """Of runs that differ in nothing but their code, version or data, the newest; and of one cut the newest data."""
    newest_data = {(row["task"], row["seed"], row["train_size"], row["test_size"]): row["data"] for row in rows}
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        cut = (row["task"], row["seed"], row["train_size"], row["test_size"])
        if row["data"] != newest_data[cut]:
            reason = f"its data has the digest {row['data'][:12]}, newer runs of this cut have {newest_data[cut][:12]}"
            pulled.leave_out(pulled.runs[row["run_id"]], "other data", reason)
            continue
        key = (*(row[name] for name in IDENTITY), row["settings"])
        if before := kept.pop(key, None):
            reason = f"run {row['run_id']} has the same options and seed and is newer"
            pulled.leave_out(pulled.runs[before["run_id"]], "duplicated seed", reason)
        kept[key] = row
    return list(kept.values())


@functools.cache
def _domain(task: str) -> str:
    try:
        found = tasks.find(task)
    except ConfigError:  # a file that has moved since
        return "NLP"
    return "reward modelling" if found.head == "compare" else DOMAINS.get(found.family, "NLP")


# --- runs -------------------------------------------------------------------------------------------------------------


def _run(result: Result, pulled: _Pulled) -> dict[str, Any]:
    """One row of `runs`, of any stage."""
    scores = pulled.scores.get(result.run_id)
    found = scores.metrics if isinstance(scores, Scores) else {}
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY}
    row |= {"run_id": result.run_id, "name": result.name, "stage": result.stage, "domain": _domain(row["task"])}
    row |= {name: found.get(name, math.nan) for name in ("accuracy", "auroc", "brier", "ece")}
    row |= {"pgr": result.metrics.get("test/pgr", math.nan), "pgr_status": result.tags.get(_scoring.PGR_STATUS, "")}
    row |= {name: result.tags.get(f"w2s.{name}", "") for name in ("ceiling_failed", "human", "gold", "fingerprint", "data")}
    row |= {"reads": {name.removeprefix("gold/"): n for name, n in result.metrics.items() if name.startswith("gold/")}}
    return row | _used(result) | _with_inputs(result, pulled)


def _used(result: Result) -> dict[str, float]:
    tokens, parameters = result.metrics.get("train/tokens", 0.0), result.metrics.get("model/parameters", 0.0)
    flops = FORWARD_AND_BACK * parameters * tokens
    return {"seconds": result.seconds, "tokens": tokens, "parameters": parameters, "flops": flops}


def _with_inputs(result: Result, pulled: _Pulled) -> dict[str, float]:
    """What the run and all that it was trained from have used, each counted once."""
    needed = {result.run_id: result}
    waiting = [result]
    while waiting:
        for run_id in _inputs(waiting.pop()):
            if run_id not in needed and run_id in pulled.runs:
                needed[run_id] = pulled.runs[run_id]
                waiting.append(pulled.runs[run_id])
    used = [_used(other) for other in needed.values()]
    return {f"all_{name}": sum(other[name] for other in used) for name in ("seconds", "tokens", "flops")}


def _inputs(result: Result) -> Iterator[str]:
    """The runs whose labels or weights this one was trained on; a ceiling is what it is reported against."""
    for role in ("weak", "labels", "generative", "strong", *(["student"] if result.stage == "debate" else [])):
        if run_id := result.tags.get(f"w2s.{role}_run_id"):
            yield run_id
    yield from (run_id for tag, run_id in result.tags.items() if tag.startswith("w2s.debates_"))
    yield from filter(None, result.tags.get("w2s.chain_run_ids", "").split(","))
