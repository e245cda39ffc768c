"""Analysis tables, one per file, each with `CAPTION`, `FRAMES`, `COLUMNS` and `table(*frames)`.

`table` is a pure function that returns a frame with the columns COLUMNS.

`FRAMES` names the fields of `Frames` that `table` takes as arguments. `outcomes` has one row per student (or rule) and seed:

| column | meaning |
|---|---|
| run_id, task, domain, weak, strong, head, method, seed | identity of the run |
| method_options, other_options | options that differ between runs: those that define the method, and all others |
| train_size, test_size, parameters, data | training rows, test rows, parameters of the strong model, digest of the data |
| checkpoints | pretrained checkpoints of models that have several, such as `chess-60k@1,chess-222k@1`; else "" |
| settings | all other options, as JSON |
| accuracy and every other metric of metrics.py | metrics on `test`, recomputed from stored probabilities |
| agreement, weak_accuracy, ceiling_accuracy | on `test`; `agreement` is agreement with the supervisor |
| elicited_correct, elicited_accuracy | the strong model's label-free answers, if better than the ceiling on `selection` |
| ceiling_failed | whether the ceiling failed to learn: near chance on its training rows, or below the supervisor |
| tuned_on_gold | name of the search that chose the run's options by ground truth of `selection`, or "" |
| file_accuracy | accuracy on `transfer` of labels from a file; NaN for labels of a run |
| collapsed | whether the student collapsed: it predicts one class for nearly all rows of `validation` (metrics.collapsed) |
| diverged | number of students with the same options that have no accuracy because their loss was not finite |
| groups, gold, answer, weak_answer, ceiling_answer | one value per test row; the order depends only on task and test size |
| correct, weak_correct, ceiling_correct | whether these answers equal gold |
| probabilities, weak_probabilities, ceiling_probabilities | class probabilities of the test rows: arrays (N, C) in float32 |

Missing values (a rule has no supervisor, a student may have no ceiling) are None or NaN.

Imported runs (analysis/imported.py) have the head `imported`, which keeps them apart from other runs in every table and test.
They have accuracies but no answers: `groups`, `gold`, and the columns of answers, correctness and probabilities are None.
Their sizes are `-`.
If a method repeats a seed, `accuracy` is the mean of its repeats, and `run_id` is the id of one of them.

`probes` has one row per probe run, concept, layer and model (before, after). `errors` has one row per test error of a run of
the stage `errors`. `facilitations` has one row per facilitated weak model, with metrics on `test`: `weak_accuracy` and
`weak_agreement` refer to the supervisor, `strong_accuracy` and `agreement` to the teacher.

`debates` has one row per debate run and judge; columns that need ground truth are NaN if none was read. `alignments` has one
row per aligned model: `*_before` refers to the plain student, `iteration` is the iteration that made the model, and
`iterations` the number of iterations with its seed and options. In both, `other_options` lists non-default options that have no
column and differ within a task; in `debates` it includes the student's method as `student_method`.

`runs` has one row per finished run of any stage; `total_*` is the total cost of the run and all runs that it was made from, and
`label_gap` the accuracy of a student's weak labels on `transfer` minus that on `test`, if its interval does not contain 0.
`left_out` has one row per excluded run. `claims` has one row per comparison that a sweep declared before it ran. The columns
of each frame are in the constant of the same name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s_mlflow.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

IMPORTED = "imported"
"""Value of the column `head` of imported runs."""
ELICITED = "elicited"
"""Status of a determined PGR if label-free answers of the strong model are better than the ceiling on `selection`."""
UNTRAINED_METHODS = ("zero_shot", "best_prompt")
"""Methods by which the strong model answers without training. A planner is none of them: it is given rules of the task."""
DETERMINED = ("ok", ELICITED)
"""Statuses of a PGR whose interval is finite."""
LABEL = ["task", "weak", "strong", "head", "method", "method_options", "other_options"]
"""Columns that identify a row of most tables: runs with the same values in them differ only in their seed."""
PAIR = ["task", "weak", "strong", "head", "other_options", "train_size", "test_size"]
"""Columns in which runs must have the same values to be compared."""
OUTCOMES = (
    *("run_id", "task", "domain", "weak", "strong", "head", "method", "seed", "checkpoints"),
    *("train_size", "test_size", "parameters", "data", "settings"),
    *(*METRICS, "agreement", "weak_accuracy", "ceiling_accuracy", "ceiling_failed"),
    *("tuned_on_gold", "file_accuracy"),
    *("elicited_correct", "elicited_accuracy"),
    *("collapsed", "diverged"),
    *("groups", "gold", "answer", "weak_answer", "ceiling_answer", "correct", "weak_correct", "ceiling_correct"),
    *("probabilities", "weak_probabilities", "ceiling_probabilities"),
)
"""Columns of `outcomes` without `method_options` and `other_options`."""
RUNS = (
    *("run_id", "name", "stage", "task", "domain"),
    *("weak", "strong", "head", "method", "method_options", "other_options", "seed", "checkpoints"),
    *(*METRICS, "pgr", "pgr_status", "ceiling_failed", "label_gap", "vs_human", "gold", "reads"),
    *("seconds", "tokens", "flops", "parameters", "total_seconds", "total_tokens", "total_flops", "fingerprint", "data"),
)


PROBES = (
    *("run_id", "student_run_id", "task", "weak", "strong", "method", "method_options", "other_options", "seed", "checkpoints"),
    *("concept", "model", "layer", "chosen"),
    *("accuracy", "accuracy_low", "accuracy_high", "control", "selectivity", "rows"),
)
ERRORS = (
    *("run_id", "student_run_id", "task", "weak", "strong", "method", "method_options", "other_options", "seed", "checkpoints"),
    *("id", "text", "gold"),
    *("answer", "weak_answer", "ceiling_answer", "on_own_evidence", "on_ceiling_evidence", "on_random"),
    *("own_evidence", "ceiling_evidence", "annotation"),
)
"""Columns of `errors`; `annotation` is the type that a person assigned, or empty."""
FACILITATIONS = (
    *("run_id", "task", "weak", "strong", "head", "method", "seed", "iteration", "gold"),
    *("train_size", "test_size", "data", "checkpoints"),
    *("settings", "accuracy", "weak_accuracy", "strong_accuracy", "agreement", "weak_agreement"),
)
"""Columns of `facilitations` without `method_options` and `other_options`; `gold` is the split that trained the teacher."""
DEBATES = (
    *("run_id", "task", "weak", "strong", "seed", "checkpoints", "split", "protocol"),
    *("explainer", "evidence_spans", "turns", "judge", "other_options"),
    *("questions", "no_verdict", "disagreements", "win_rate", "win_rate_on_disagreements", "cost", "position_bias"),
    *("judge_accuracy", "always_strong_accuracy", "judge_ece", "label_accuracy", "weak_accuracy", "strong_accuracy"),
)
ALIGNMENTS = (
    *("run_id", "task", "weak", "strong", "seed", "checkpoints", "debate_weight", "kl"),
    *("opponent", "evidence_spans", "judge", "other_options", "iteration", "iterations"),
    *("accuracy_before", "accuracy_after", "preference_before", "preference_after", "win_rate_before", "win_rate_after"),
    *("entropy", "evidence_words"),
)
CLAIMS = ("claim", "task", "weak", "strong", "method", "reference")
"""Columns of `claims`, one row per declared comparison of a student with a reference; see tables/claim.py."""
LEFT_OUT = ("run_id", "name", "exclusion_rule", "reason")


@dataclass(frozen=True)
class Frames:
    """Data frames from which tables and figures are made. The docstring of this module describes their rows."""

    outcomes: pd.DataFrame
    runs: pd.DataFrame
    left_out: pd.DataFrame
    probes: pd.DataFrame
    errors: pd.DataFrame
    facilitations: pd.DataFrame
    debates: pd.DataFrame
    alignments: pd.DataFrame
    claims: pd.DataFrame


def logged(outcomes: pd.DataFrame, option: str) -> pd.Series:
    """Return the value of an option of each run as text, from the column `settings`; "" for a run without this option."""
    return outcomes["settings"].map(lambda settings: str(json.loads(settings).get(option, "")))
