"""Align the strong model: it learns the weak labels, and which evidence convinces a judge (Algorithm 1, step 5; Definition 5).

This stage minimises eq. 2, L(f_S'(q), f_W(q)) - lambda D, where D is the judge's log-odds for the strong side. (The paper
prints "+ D" under an argmin, but calls D a reward to maximise.) The first term is the loss of a plain student. The second term
trains, by policy gradient, the model and a policy that selects evidence from the model's hidden states
(debate/policy_gradient.py). With lambda = 0 the result is bit-for-bit identical to the plain student.

With `--iterations`, Algorithm 1 is repeated: the aligned model debates all of `transfer`, showing evidence that its policy
selects; the judge decides the debates; a reward model is fitted on all previous verdicts; and the strong model is aligned
again from its initial weights, with the reward model as the judge. The debates and the model of each iteration are separate
runs (_alignment_round.py).

Metrics: the metrics of a student; and, per step, `align/reward`, the mean D of the sampled evidence; `align/win_rate`, the
share of samples with D > 0; `align/kl`, the KL divergence from the initial policy; and two metrics that show whether the policy
collapses, `align/entropy` (1: samples are uniform, 0: samples are always the same) and `align/evidence_words`, the length of
the evidence.

Metrics on held-out questions, on which the model is not trained and whose ground truth is not read: `align/baseline_<name>` for
the plain student, which selects evidence at random, and `align/aligned_<name>` for the aligned model, where <name> is a metric
`debate/<name>` of the stage debate; `align/gain`, the mean increase of D from the plain student to the aligned model, with its
interval over groups. `test/baseline_accuracy` is the plain student's accuracy. From iteration 2 on, `align/reward` and
`align/win_rate` are computed with the reward model, `align/baseline_*` and `align/aligned_*` with the judge;
`align/aligned_agreement/<judge>/reward` is the share of debates in which both choose the same winner.

Artifacts: the artifacts of a student; `policy.safetensors`; the debates in `before/` and `after/`; from iteration 2 on
`reward.json`; in the last iteration `tables/iterations_<part>.csv`, with win rate, mean D and accuracy by iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.config import selected
from w2s_mlflow.debate import alignment_options, participants
from w2s_mlflow.debate.alignment_options import Config
from w2s_mlflow.pipeline.options import OF_STUDENT
from w2s_mlflow.stages import _alignment_round, debate
from w2s_mlflow.stages._alignment_round import VERSION

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]


def run(config: Config) -> Result:
    """Find or train the models of all iterations, and return the run of the last iteration.

    Raises ConfigError for invalid options, before anything is written.
    """
    if config.iterations == 1:
        return _alignment_round.run(config)
    # Keep the model, because the debates of the next iteration load it.
    config = replace(config, keep_model="always")
    rounds, debates = [_alignment_round.run(config)], list[Any]()
    for number in range(1, config.iterations):
        debates.append(_debates(replace(config, iterations=number), rounds[-1]))
        rounds.append(_alignment_round.run(config, debates))
    return rounds[-1] if config.eval_split == "none" else _by_iteration(rounds, config)


def _debates(config: Config, aligned: Result) -> Result:
    """Find or run debates on all of `transfer`. The strong side is one iteration's model, whose policy selects the evidence."""
    shared = config.shared() | {
        "eval_split": "none",
        "split": "transfer",
        "num_questions": None,
        "explainer": alignment_options.TRAINED,
        "traces": 0,
    }
    options = selected(config, (*OF_STUDENT, "evidence_spans", "judge"))
    options["judge_options"] = participants.resolved(config.judge, config.judge_options)
    student_method = f"{_alignment_round.describe(config)}, kl {config.kl:g}"
    return debate.between(debate.Config(**shared, **options), _alignment_round.weak(config), aligned, student_method)


def _by_iteration(rounds: Sequence[Result], config: Config) -> Result:
    """Add `tables/iterations_<part>.csv` to the run of the last iteration, and return this run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    name = f"iterations_{config.eval_split}"

    def stage(directory: Path) -> None:
        import pandas as pd

        (directory / "tables").mkdir()
        pd.DataFrame(_rows(rounds, config)).to_csv(directory / "tables" / f"{name}.csv", index=False)

    return reports.attach_once(rounds[-1], name, lambda last: Report(stage))


def _rows(rounds: Sequence[Result], config: Config) -> list[dict[str, Any]]:
    """Return the rows of the table of iterations: one for the plain student (iteration 0), and one for each iteration."""
    part, first = config.eval_split, rounds[0]
    start = {"iteration": 0, "run_id": first.tags["w2s.baseline_run_id"]} | _iteration_metrics(first, "baseline", config.judge)
    rows = [start | {"accuracy": first.metrics.get(f"{part}/baseline_accuracy", math.nan)}]
    for number, run in enumerate(rounds, start=1):
        row = {"iteration": number, "run_id": run.run_id} | _iteration_metrics(run, "aligned", config.judge)
        rows.append(row | {"accuracy": run.metrics.get(f"{part}/accuracy", math.nan)})
    return rows


def _iteration_metrics(run: Result, model: str, judge: str) -> dict[str, float]:
    names = ("win_rate", "win_rate_low", "win_rate_high", "preference", f"agreement/{judge}/reward")
    values = {name: run.metrics.get(f"align/{model}_{name}", math.nan) for name in names}
    return {name.replace(f"/{judge}/", "_"): value for name, value in values.items()}
