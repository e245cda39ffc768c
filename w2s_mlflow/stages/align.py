"""Algorithm 1, step 5: the strong model learns weak labels, and to explain so that a judge prefers it (Definition 5, eq. 2).

The paper prints "+ D" under an argmin while it calls D a reward to raise: minimised is L(f_S'(q), f_W(q)) - lambda D. The first
term is a plain student's; the second moves a policy over evidence, which reads the model's own hidden states, and the model
with it, by a policy gradient (debate/policy_gradient.py). With lambda = 0 it is the plain student, to the bit.

With `--rounds` Algorithm 1 is gone through again and again: the aligned model debates all of `transfer` with its policy, the
judge decides, a reward model learns from its verdicts so far, and the model is aligned anew, from the start weights, with the
reward model in the judge's place. Each round's debates and model are runs of their own (_alignment_round.py).

Metrics: those of a student; by step `align/reward`, the mean D of what is drawn, `align/win_rate`, `align/kl` from the policy's
start, and two guards against a collapse, `align/entropy` (1: anything may be drawn, 0: always the same) and `align/words` of
evidence. On held-out questions, on which it was not trained and of which no truth is read: `before/<name>` of the plain
student, which draws at random, and `after/<name>`, as `debate/<name>` of the stage debate; `align/gain`, the mean of what D has
grown by, with its interval over groups. `test/before_accuracy` beside `test/accuracy`. From round 2 on `align/reward` and
`align/win_rate` are what the reward model says, `before/` and `after/` what the judge says; `after/agreement/<judge>/reward`:
how often both let the same side win.
Artifacts: those of a student; `policy.safetensors`; `before/` and `after/`, the debates; from round 2 on `reward.json`, and on
the last round `tables/rounds_<part>.csv`, win rate, mean D and accuracy by round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.debate import participants
from w2s_mlflow.debate.alignment_options import Config
from w2s_mlflow.pipeline.options import OF_STUDENT
from w2s_mlflow.stages import _alignment_round, debate
from w2s_mlflow.stages._alignment_round import VERSION

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]


def run(config: Config) -> Result:
    """The last round's run, found or made, with all it needs. Raises ConfigError before anything is written."""
    if config.rounds == 1:
        return _alignment_round.run(config)
    config = replace(config, keep_model="always")  # the next round debates with it
    found, debates = [_alignment_round.run(config)], list[Any]()
    for number in range(1, config.rounds):
        debates.append(_debates(replace(config, rounds=number), found[-1]))
        found.append(_alignment_round.run(config, debates))
    return found[-1] if config.report == "none" else _by_round(found, config)


def _debates(config: Config, aligned: Result) -> Result:
    """The debates of all of `transfer` by the model of a round with its policy, and what the judge says of them."""
    shared = config.shared() | {"report": "none", "split": "transfer", "questions": None, "explainer": "policy", "traces": 0}
    own = {name: getattr(config, name) for name in (*OF_STUDENT, "pieces", "judge")}
    own["judge_options"] = participants.resolved(config.judge, config.judge_options)
    argues = f"{_alignment_round.describe(config)}, kl {config.kl:g}"
    return debate.held(debate.Config(**shared, **own), _alignment_round.weak(config), aligned, argues)


def _by_round(found: Sequence[Result], config: Config) -> Result:
    """The last round's run with `tables/rounds_<part>.csv`."""
    from w2s_mlflow.tracking import followers
    from w2s_mlflow.tracking.recorder import Report

    name = f"rounds_{config.report}"

    def stage(directory: Path) -> None:
        import pandas as pd

        (directory / "tables").mkdir()
        pd.DataFrame(_rows(found, config)).to_csv(directory / "tables" / f"{name}.csv", index=False)

    return followers.attach_once(found[-1], name, lambda last: Report(stage))


def _rows(found: Sequence[Result], config: Config) -> list[dict[str, Any]]:
    """A row for the plain student, round 0, and one for each round; the judge's own words on held-out questions."""
    part, first = config.report, found[0]
    start = {"round": 0, "run_id": first.tags["w2s.before_run_id"]} | _round_metrics(first, "before", config.judge)
    rows = [start | {"accuracy": first.metrics.get(f"{part}/before_accuracy", math.nan)}]
    for number, own in enumerate(found, start=1):
        row = {"round": number, "run_id": own.run_id} | _round_metrics(own, "after", config.judge)
        rows.append(row | {"accuracy": own.metrics.get(f"{part}/accuracy", math.nan)})
    return rows


def _round_metrics(found: Result, when: str, judge: str) -> dict[str, float]:
    names = ("win_rate", "win_rate_low", "win_rate_high", "preference", f"agreement/{judge}/reward")
    values = {name: found.metrics.get(f"{when}/{name}", math.nan) for name in names}
    return {name.replace(f"/{judge}/", "_"): value for name, value in values.items()}
