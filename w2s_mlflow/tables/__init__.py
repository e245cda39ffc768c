"""One analysis table per file: `CAPTION` and `table(outcomes) -> DataFrame`, pure frame -> frame.

`outcomes` has one row per student (or rule) and seed:

| column | what |
|---|---|
| run_id, task, weak, strong, head, method, variant, seed | which run; `variant`: options that differ within a label |
| train_size, test_size, parameters | rows drawn, test rows, parameters of the strong model |
| accuracy, agreement, weak_accuracy, ceiling_accuracy | on `test`; agreement is with the supervisor |
| ceiling_failed | whether the ceiling did not learn: near chance on its training rows, or below the supervisor |
| groups, correct, weak_correct, ceiling_correct | per test row, in the same order for all runs of a task and test size |

What a run has none of (a rule any supervisor, a student its ceiling) is None or not a number.
"""

from __future__ import annotations

LABEL = ["task", "weak", "strong", "head", "method", "variant"]
"""What rows of different seeds share."""
PAIR = ["task", "weak", "strong", "head", "train_size", "test_size"]
"""What runs that may be compared share."""
