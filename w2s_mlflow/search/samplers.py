"""Optuna's samplers and pruners by the names that `--sampler` and `--pruner` accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow import streams
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.search.storage import suppress_warnings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "hyperband", "wilcoxon")


def make_sampler(sampler: str, seed: int, number: int) -> BaseSampler:
    """Return the sampler for one trial.

    The sampler is seeded with `seed` and `number`, the number of trials counted before this one, so that a resumed study
    samples the same options as an uninterrupted one.

    Raises:
        ConfigError: the sampler is unknown.
    """
    import optuna

    trial_seed = streams.integer(seed, streams.TRIALS, number)
    if sampler == "random":
        return optuna.samplers.RandomSampler(trial_seed)
    with suppress_warnings():
        if sampler == "tpe":
            return optuna.samplers.TPESampler(seed=trial_seed, constant_liar=True)
        if sampler == "grid":
            return optuna.samplers.BruteForceSampler(trial_seed, avoid_premature_stop=True)
    raise unknown("--sampler", sampler, SAMPLERS)


def make_pruner(name: str, runs: int) -> BasePruner:
    """Return the pruner.

    Args:
        runs: number of runs per trial, the maximum resource of the hyperband pruner.
    """
    import optuna

    if name == "none":
        return optuna.pruners.NopPruner()
    if name == "median":
        return optuna.pruners.MedianPruner()
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=runs)
    with suppress_warnings():
        return optuna.pruners.WilcoxonPruner()
