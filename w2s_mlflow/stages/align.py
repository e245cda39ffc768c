"""Algorithm 1, step 5: the strong model learns weak labels and which evidence convinces a judge (Definition 5, eq. 2).

The paper prints "+ D" under an argmin but calls D a reward to maximise; this stage minimises L(f_S'(q), f_W(q)) - lambda D. The
first term is the loss of a plain student. The second trains the model and a policy, which selects evidence from the model's
hidden states, by policy gradient (debate/policy_gradient.py). With lambda = 0 the result is bit for bit the plain student.

`--iterations` repeats Algorithm 1: the aligned model debates all of `transfer` with its policy, the judge decides, a reward
model is fitted on all previous verdicts, and the strong model is aligned again from its initial weights with the reward model
as the judge. The debates and the model of each round are separate runs (_alignment_round.py).

Metrics: as for a student, and by step: `align/reward`, the mean D of the samples; `align/win_rate`; `align/kl`, the divergence
from the initial policy; and, to detect a collapse, `align/entropy` (1: uniform samples, 0: always the same) and `align/words`,
the length of the evidence. On held-out questions, which are not trained on and whose ground truth is not read: `before/<name>`
for the plain student, which selects evidence at random, and `after/<name>` for the aligned model, named like `debate/<name>` of
the stage debate; `align/gain`, the mean increase of D, with its interval over groups. `test/before_accuracy` is the plain
student's accuracy. From round 2 on, `align/reward` and `align/win_rate` come from the reward model, `before/` and `after/` from
the judge; `after/agreement/<judge>/reward` is how often both choose the same winner.
Artifacts: as for a student, `policy.safetensors`, and `before/` and `after/`, the debates; from round 2 on `reward.json`, and
in the last round `tables/rounds_<part>.csv` with win rate, mean D and accuracy by round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.debate import alignment_options, participants
from w2s_mlflow.debate.alignment_options import Config
from w2s_mlflow.pipeline.options import OF_STUDENT
from w2s_mlflow.stages import _alignment_round, debate
from w2s_mlflow.stages._alignment_round import VERSION

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]


def run(config: Config) -> Result:
    """Find or train the last round's model, with its inputs. Raises ConfigError before anything is written."""
    if config.iterations == 1:
        return _alignment_round.run(config)
    config = replace(config, keep_model="always")  # for the next round's debates
    rounds, debates = [_alignment_round.run(config)], list[Any]()
    for number in range(1, config.iterations):
        debates.append(_debates(replace(config, iterations=number), rounds[-1]))
        rounds.append(_alignment_round.run(config, debates))
    return rounds[-1] if config.eval_split == "none" else _by_round(rounds, config)


def _debates(config: Config, aligned: Result) -> Result:
    """Find or run the judged debates on all of `transfer` in which a round's aligned model argues with its policy."""
    shared = config.shared() | {
        "eval_split": "none",
        "split": "transfer",
        "num_questions": None,
        "explainer": alignment_options.TRAINED,
        "traces": 0,
    }
    options = {name: getattr(config, name) for name in (*OF_STUDENT, "evidence_spans", "judge")}
    options["judge_options"] = participants.resolved(config.judge, config.judge_options)
    argues = f"{_alignment_round.describe(config)}, kl {config.kl:g}"
    return debate.held(debate.Config(**shared, **options), _alignment_round.weak(config), aligned, argues)


def _by_round(rounds: Sequence[Result], config: Config) -> Result:
    """Attach `tables/rounds_<part>.csv` to the last round's run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    name = f"rounds_{config.eval_split}"

    def stage(directory: Path) -> None:
        import pandas as pd

        (directory / "tables").mkdir()
        pd.DataFrame(_rows(rounds, config)).to_csv(directory / "tables" / f"{name}.csv", index=False)

    return reports.attach_once(rounds[-1], name, lambda last: Report(stage))


def _rows(rounds: Sequence[Result], config: Config) -> list[dict[str, Any]]:
    """Return a row for the plain student (round 0) and a row per round, with metrics of the judge on held-out questions."""
    part, first = config.eval_split, rounds[0]
    start = {"round": 0, "run_id": first.tags["w2s.before_run_id"]} | _round_metrics(first, "before", config.judge)
    rows = [start | {"accuracy": first.metrics.get(f"{part}/before_accuracy", math.nan)}]
    for number, run in enumerate(rounds, start=1):
        row = {"round": number, "run_id": run.run_id} | _round_metrics(run, "after", config.judge)
        rows.append(row | {"accuracy": run.metrics.get(f"{part}/accuracy", math.nan)})
    return rows


def _round_metrics(run: Result, when: str, judge: str) -> dict[str, float]:
    names = ("win_rate", "win_rate_low", "win_rate_high", "preference", f"agreement/{judge}/reward")
    values = {name: run.metrics.get(f"{when}/{name}", math.nan) for name in names}
    return {name.replace(f"/{judge}/", "_"): value for name, value in values.items()}
