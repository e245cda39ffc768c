"""Hyperparameter searches: Optuna proposes options, models are trained with them, and an objective scores the models.

A search file defines STAGE (default: student), METRIC (default: accuracy), DIRECTION (default: that of the metric), OBJECTIVE
(default: proxy), SETTING (the fixed options) and `space(trial)`, which returns the options of a trial. For the objective
`proxy`, it also defines PROXY, a list of changes to SETTING; trials are scored on the changed settings. The value of a trial is
a mean over its seeds and, for `proxy`, over the changed settings:

| objective | value of a trial | options that may be tuned |
|---|---|---|
| agreement | agreement with the training labels on the validation split; rewards imitation | learning rate and epochs |
| proxy | `selection/METRIC` on other tasks, or with a smaller pair of models | any |
| oracle | `selection/METRIC` on this task with this pair: needs ground truth, which is not available in practice | any |

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
from w2s_mlflow.metrics import METRICS
from w2s_mlflow.records import canonical_json

if TYPE_CHECKING:
    import optuna

    from w2s_mlflow.tracking.results import Result

OBJECTIVES = ("agreement", "proxy", "oracle")
DIRECTIONS = ("maximize", "minimize")
IMITATION_SAFE = {"learning_rate", "epochs", "generative_epochs"}
"""Options that the objective `agreement` may tune. They do not control how closely a student follows the weak labels."""
SCORES = (*METRICS, "agreement", "pgr", "gain")
"""Legal values of METRIC: the metrics that stages report on `selection` and `test`."""
TRUTHFUL = ("supervisor", "ceiling")
"""Stages that train on ground truth."""


@dataclass(frozen=True)
class Search:
    """The validated contents of a search file.

    Attributes:
        metric: MLflow metric whose mean over the runs of a trial is the trial's value, such as `selection/accuracy`.
        score: the file's METRIC, by which the best setting is compared with the default setting on `test`.
        direction: whether a higher or a lower value of a trial is better.
        tuned: the file's SETTING: the options that are fixed while others are tuned.
        settings: the settings that each trial runs, once per seed. For the objective `proxy`, these are SETTING with each
            change in PROXY; for other objectives, SETTING alone.
        space: function that returns the options of an Optuna trial.
        source: text of the search file.
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

    def digest(self, dependencies: Mapping[str, Any]) -> str:
        """Return the digest of everything that a trial's value depends on.

        Args:
            dependencies: what the value depends on besides the search file, such as the sampler and the runs' fingerprints.
        """
        content = [self.source, self.stage, self.objective, self.metric, self.direction, dict(dependencies)]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]


def load_search(name: str, module: ModuleType, source: str, objective: str | None) -> Search:
    """Return the search that a file defines.

    Args:
        objective: the objective that replaces the file's OBJECTIVE; None keeps it.

    Raises:
        ConfigError: the stage, objective, direction or metric is unknown, or the objective is `proxy` and the file has
            no PROXY.
    """
    selected = str(objective or getattr(module, "OBJECTIVE", "proxy"))
    if selected not in OBJECTIVES:
        raise unknown("--objective", selected, OBJECTIVES)
    setting, proxies = dict(getattr(module, "SETTING", {})), list(getattr(module, "PROXY", []))
    if selected == "proxy" and not proxies:
        raise ConfigError(
            f"--sweep {name}: --objective proxy needs PROXY, a list of changes to SETTING on which trials are scored"
        )
    settings = [setting | proxy for proxy in proxies] if selected == "proxy" else [setting]
    stage = getattr(module, "STAGE", "student")
    if "eval_split" not in options.sentences(registry.plugin("stages", stage, f"--sweep {name}: STAGE").Config):
        raise ConfigError(f"--sweep {name}: STAGE must be a stage that stores predictions, got {stage!r}")
    score = str(getattr(module, "METRIC", "accuracy"))
    if score not in SCORES:
        raise unknown(f"--sweep {name}: METRIC", score, SCORES)
    metric = f"selection/{score}"
    if selected == "agreement":  # if the training labels are ground truth, agreement with them is accuracy
        metric = "validation/accuracy" if stage in TRUTHFUL else "validation/best_agreement"
    minimized = selected != "agreement" and score in METRICS and METRICS[score].direction == "minimize"
    direction: Any = getattr(module, "DIRECTION", "minimize" if minimized else "maximize")
    if direction not in DIRECTIONS:
        raise unknown(f"--sweep {name}: DIRECTION", direction, DIRECTIONS)
    return Search(name, stage, selected, metric, score, direction, setting, settings, module.space, source)


def sample_params(search: Search, trial: optuna.Trial) -> dict[str, Any]:
    """Return a trial's options. Raises ConfigError if `space` fails or returns an option that must not be tuned."""
    try:
        params = dict(search.space(trial))
    except (Exception, SystemExit) as error:  # `space` is the user's code: report any error as a short message
        raise ConfigError(f"--sweep {search.name}: space(trial) failed: {type(error).__name__}: {error}") from error
    if "seed" in params:
        raise ConfigError(f"--sweep {search.name}: space(trial) must not return `seed`, which --search-seeds and --seeds set")
    if search.objective == "agreement" and (tuned := sorted(set(params) - IMITATION_SAFE)):
        raise must(
            "objective",
            f"proxy or oracle if the space has {', '.join(tuned)} (agreement rewards imitation of the weak labels)",
            "agreement",
        )
    return params


def value(search: Search, results: Sequence[Result]) -> float:
    """Return a trial's value: the mean of the metric over its runs. Raises ConfigError if a run does not log the metric."""
    if missing := next((result for result in results if search.metric not in result.metrics), None):
        raise ConfigError(
            f"--objective {search.objective} needs {search.metric}, which run {missing.run_id} ({missing.name}) does not log"
        )
    return float(np.mean([result.metrics[search.metric] for result in results]))


def configs(search: Search, params: Mapping[str, Any], seeds: Sequence[int], sizes: Mapping[str, Any]) -> list[Any]:
    """Return the Configs of a trial, one per setting and seed.

    The runs are scored only on the split that the objective needs, never on `test`.

    Raises:
        ConfigError: the stage does not have one of the options, or rejects its value.
    """
    kind = registry.plugin("stages", search.stage, "stage").Config
    report = "none" if search.objective == "agreement" else "selection"
    merged = [dict(setting) | dict(params) | dict(sizes) for setting in search.settings]
    return [options.parse(kind, values | {"seed": seed, "eval_split": report}) for values in merged for seed in seeds]


def command(search: Search, params: Mapping[str, Any]) -> str:
    """Return the shell command that runs the tuned setting with a trial's options."""
    values = {**search.tuned, **params}
    return " ".join(
        ["python -m w2s_mlflow", search.stage, *(f"{exceptions.flag(name)} {value}" for name, value in values.items())]
    )
