"""One analysis table per file: `CAPTION`, `FRAMES`, `COLUMNS` and `table(*frames)`, a frame with those columns; pure functions.

`FRAMES` names those of `Frames` that it takes. `outcomes` has one row per student (or rule) and seed:

| column | what |
|---|---|
| run_id, task, domain, weak, strong, head, method, seed | which run |
| variant, setting | the options, where they differ, that make the method; and those that runs must share to be compared |
| train_size, test_size, parameters, data | rows drawn, test rows, parameters of the strong model, the data's digest |
| settings | all other options, as JSON |
| accuracy, auroc, brier, ece | on `test`, from stored probabilities |
| agreement, weak_accuracy, ceiling_accuracy | on `test`; agreement is with the supervisor |
| ceiling_failed | whether the ceiling did not learn: near chance on its training rows, or below the supervisor |
| groups, gold, answer, weak_answer, ceiling_answer | per test row, in the same order for all runs of a task and test size |
| correct, weak_correct, ceiling_correct | whether these answers are the gold ones |

What a run has none of (a rule any supervisor, a student its ceiling) is None or not a number.

`probes` has one row per probe run, concept, layer and model (before, after): PROBES. `errors` has one row per test error of
a run of the stage `errors`: ERRORS. `facilitations` has one row per facilitated weak model: FACILITATIONS; on `test`, with
`weak_accuracy` and `weak_agreement` of and with the supervisor, `strong_accuracy` and `agreement` of and with its teacher.

`debates` has one row per run of debates and judge (DEBATES; what needs ground truth is not a number where none was read),
`alignments` one per aligned model (ALIGNMENTS; `before` is the plain student, `round` the one that made the model, `rounds` how
many of its seed and options there are); `setting` has the other options that differ, where they are not as by default, and in
`debates` as `argues` the method of the student.

`runs` has one row per finished run of any stage (columns: RUNS; `all_*` is with everything it was made from), `left_out` one
per run that does not count (run_id, name, rule, reason).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LABEL = ["task", "weak", "strong", "head", "method", "variant", "setting"]
"""What rows of different seeds share."""
PAIR = ["task", "weak", "strong", "head", "setting", "train_size", "test_size"]
"""What runs that may be compared share."""
OUTCOMES = (
    *("run_id", "task", "domain", "weak", "strong", "head", "method", "seed"),
    *("train_size", "test_size", "parameters", "data", "settings"),
    *("accuracy", "auroc", "brier", "ece", "agreement", "weak_accuracy", "ceiling_accuracy", "ceiling_failed"),
    *("groups", "gold", "answer", "weak_answer", "ceiling_answer", "correct", "weak_correct", "ceiling_correct"),
)
"""The columns of `outcomes` but `variant` and `setting`."""
RUNS = (
    *("run_id", "name", "stage", "task", "domain", "weak", "strong", "head", "method", "variant", "setting", "seed"),
    *("accuracy", "auroc", "brier", "ece", "pgr", "pgr_status", "ceiling_failed", "human", "gold", "reads"),
    *("seconds", "tokens", "flops", "parameters", "all_seconds", "all_tokens", "all_flops", "fingerprint", "data"),
)


PROBES = (
    *("run_id", "student_run_id", "task", "weak", "strong", "method", "variant", "setting", "seed"),
    *("concept", "model", "layer", "chosen"),
    *("accuracy", "accuracy_low", "accuracy_high", "control", "selectivity", "rows"),
)
ERRORS = (
    *("run_id", "student_run_id", "task", "weak", "strong", "method", "variant", "setting", "seed", "id", "text", "gold"),
    *("answer", "weak_answer", "ceiling_answer", "on_own_evidence", "on_ceiling_evidence", "on_random"),
    *("own_evidence", "ceiling_evidence", "coded"),
)
"""`coded` is the type that a person gave it, or nothing."""
FACILITATIONS = (
    *("run_id", "task", "weak", "strong", "head", "method", "seed", "turn", "gold", "train_size", "test_size", "data"),
    *("settings", "accuracy", "weak_accuracy", "strong_accuracy", "agreement", "weak_agreement"),
)
"""The columns of `facilitations` but `variant` and `setting`; `gold` is the part whose ground truth the teacher has learned."""
DEBATES = (
    *("run_id", "task", "weak", "strong", "seed", "split", "form", "explainer", "pieces", "rounds", "judge", "setting"),
    *("questions", "no_verdict", "disagreements", "win_rate", "apart_win_rate", "cost", "position_bias"),
    *("judge_accuracy", "strong_right", "judge_ece", "label_accuracy", "weak_accuracy", "strong_accuracy"),
)
ALIGNMENTS = (
    *("run_id", "task", "weak", "strong", "seed", "lam", "kl", "opponent", "pieces", "judge", "setting", "round", "rounds"),
    *("accuracy_before", "accuracy_after", "preference_before", "preference_after", "win_rate_before", "win_rate_after"),
    *("entropy", "words"),
)
LEFT_OUT = ("run_id", "name", "rule", "reason")


@dataclass(frozen=True)
class Frames:
    """What tables and figures are made from."""

    outcomes: pd.DataFrame
    runs: pd.DataFrame
    left_out: pd.DataFrame
    probes: pd.DataFrame
    errors: pd.DataFrame
    facilitations: pd.DataFrame
    debates: pd.DataFrame
    alignments: pd.DataFrame
