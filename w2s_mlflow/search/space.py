"""Hyperparameter searches: Optuna proposes options, students are trained with them, and an objective scores them.

A search file defines STAGE (default: student), METRIC (accuracy), DIRECTION (maximize), SETTING, the fixed options,
`space(trial)`, which returns the options of one trial, OBJECTIVE (proxy) and, for the objective `proxy`, PROXY, a list of
changes to SETTING on which trials are scored instead. Each objective is a mean over seeds (and PROXY):

| objective | value of a trial | options that may be tuned |
|---|---|---|
| agreement | agreement with the training labels on their validation slice: rewards a student's imitation | rates and epochs |
| proxy | `selection/METRIC` of other tasks, or of a smaller pair of models | any |
| oracle | `selection/METRIC` of this task and pair: ground truth that is not available in practice | any |

Trials are never scored on `test`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import exceptions, registry
from w2s_mlflow.exceptions import ConfigError, must, unknown
from w2s_mlflow.records import canonical_json

if TYPE_CHECKING:
    import optuna

    from w2s_mlflow.tracking.results import Result

OBJECTIVES = ("agreement", "proxy", "oracle")
DIRECTIONS = ("maximize", "minimize")
IMITATION_SAFE = {"learning_rate", "epochs", "generative_epochs"}
"""Options that may be tuned by agreement with weak labels: none sets how closely a student follows the labels."""
SCORES = ("accuracy", "auroc", "brier", "ece", "agreement", "pgr", "gain")
"""Legal values of METRIC: the metrics that stages report on `selection` and `test`."""
TRUTHFUL = ("supervisor", "ceiling")
"""Stages that train on ground truth."""


@dataclass(frozen=True)
class Search:
    """The validated contents of a search file.

    Attributes:
        metric: metric whose mean is a trial's value.
        score: metric by which the best setting is compared with the default on `test`.
        tuned: setting to tune.
        settings: settings that each trial runs, once per seed: PROXY's, or `tuned` alone.
        source: text of the file.
    """

    name: str
    stage: str
    objective: str
    metric: str
    score: str
    direction: Literal["maximize", "minimize"]
    tuned: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]]
    space: Callable[[optuna.Trial], Mapping[str, Any]]
    source: str = field(repr=False, default="")

    def digest(self, hangs_on: Mapping[str, Any]) -> str:
        """Return the digest of everything that a trial's value depends on: the search file and `hangs_on`."""
        said = [self.source, self.stage, self.objective, self.metric, self.direction, dict(hangs_on)]
        return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:12]


def of(name: str, module: ModuleType, source: str, objective: str | None) -> Search:
    """Build the search that a file defines.

    Raises:
        ConfigError: the stage, objective, direction or metric is unknown, or the file lacks what its objective needs.
    """
    chosen = str(objective or getattr(module, "OBJECTIVE", "proxy"))
    if chosen not in OBJECTIVES:
        raise unknown("--objective", chosen, OBJECTIVES)
    setting, proxies = dict(getattr(module, "SETTING", {})), list(getattr(module, "PROXY", []))
    if chosen == "proxy" and not proxies:
        raise ConfigError(f"--sweep {name}: --objective proxy needs PROXY, a list of settings that stand in for this one")
    direction: Any = getattr(module, "DIRECTION", "maximize")
    if direction not in DIRECTIONS:
        raise unknown(f"--sweep {name}: DIRECTION", direction, DIRECTIONS)
    settings = [setting | proxy for proxy in proxies] if chosen == "proxy" else [setting]
    stage = getattr(module, "STAGE", "student")
    if "eval_split" not in options.sentences(registry.plugin("stages", stage, f"--sweep {name}: STAGE").Config):
        raise ConfigError(f"--sweep {name}: STAGE must be a stage with predictions, got {stage!r}")
    score = str(getattr(module, "METRIC", "accuracy"))
    if score not in SCORES:
        raise unknown(f"--sweep {name}: METRIC", score, SCORES)
    metric = f"selection/{score}"
    if chosen == "agreement":  # trained on ground truth, a model's agreement with its labels is accuracy
        metric = "validation/accuracy" if stage in TRUTHFUL else "validation/best_agreement"
    return Search(name, stage, chosen, metric, score, direction, setting, settings, module.space, source)


def proposed(search: Search, trial: optuna.Trial) -> dict[str, Any]:
    """Return a trial's options. Raises ConfigError if `space` fails or proposes an option that must not be tuned."""
    try:
        found = dict(search.space(trial))
    except Exception as error:  # user code: report any error in one sentence
        raise ConfigError(f"--sweep {search.name}: its space cannot be drawn from: {type(error).__name__}: {error}") from error
    if "seed" in found:
        raise ConfigError(f"--sweep {search.name}: its space must leave the seed to --search-seeds and --seeds")
    if search.objective == "agreement" and (tuned := sorted(set(found) - IMITATION_SAFE)):
        raise must(
            "objective", f"proxy or oracle for a space with {', '.join(tuned)}, as agreement rewards imitation", "agreement"
        )
    return found


def value(search: Search, results: Sequence[Result]) -> float:
    """Return the objective of a trial, the mean over its runs. Raises ConfigError if a run does not log the metric."""
    if missing := next((result for result in results if search.metric not in result.metrics), None):
        raise ConfigError(
            f"--objective {search.objective} needs {search.metric}, which run {missing.run_id} ({missing.name}) does not log"
        )
    return float(np.mean([result.metrics[search.metric] for result in results]))


def configs(search: Search, given: Mapping[str, Any], seeds: Sequence[int], sizes: Mapping[str, Any]) -> list[Any]:
    """Return the Configs of a trial, one per setting and seed; they report the split the objective needs, never `test`.

    Raises:
        ConfigError: the stage does not have such an option, or rejects its value.
    """
    kind = registry.plugin("stages", search.stage, "stage").Config
    report = "none" if search.objective == "agreement" else "selection"
    every = [dict(setting) | dict(given) | dict(sizes) for setting in search.settings]
    return [options.parse(kind, one | {"seed": seed, "eval_split": report}) for one in every for seed in seeds]


def command(search: Search, given: Mapping[str, Any]) -> str:
    """Return the command that runs the tuned setting with these options."""
    chosen = {**search.tuned, **given}
    return " ".join(
        ["python -m w2s_mlflow", search.stage, *(f"{exceptions.flag(name)} {value}" for name, value in chosen.items())]
    )
