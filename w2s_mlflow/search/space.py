"""Searches: Optuna proposes options, students are made with them, and an objective says how good they are.

A search file has STAGE, METRIC and DIRECTION (accuracy, maximize), SETTING, the options that are tuned around, `space(trial)`,
which gives the options of one trial, OBJECTIVE, and, for the objective `proxy`, PROXY, the settings that stand in for the one
that is tuned. Objectives, each a mean over seeds:

| objective | what a trial sees | what it may tune |
|---|---|---|
| agreement | that with the labels trained on, on their validation slice: of a student it rewards imitation | rates and epochs |
| proxy | `selection/METRIC` of other tasks, or of a smaller pair of models | anything |
| oracle | `selection/METRIC` of this task and pair: ground truth that nobody has | anything |

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
"""What may be tuned by agreement with weak labels: nothing that says how closely they are to be followed."""
SCORES = ("accuracy", "auroc", "brier", "ece", "agreement", "pgr", "gain")
"""What a METRIC may be: what stages report of `selection` and `test`."""
TRUTHFUL = ("supervisor", "ceiling")
"""The stages whose own labels are ground truth."""


@dataclass(frozen=True)
class Search:
    """What a search file says, checked.

    Attributes:
        metric: what a trial's value is the mean of.
        score: what the best setting is held against the default by, on `test`.
        tuned: the setting that the search is for.
        settings: what each trial is run on, once per seed: PROXY's, or `tuned` alone.
        source: the file's text.
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
        """The digest of all that a trial's value hangs on: what the file says, and what else is given."""
        said = [self.source, self.stage, self.objective, self.metric, self.direction, dict(hangs_on)]
        return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:12]


def of(name: str, module: ModuleType, source: str, objective: str | None) -> Search:
    """The search in a file.

    Raises:
        ConfigError: it names a stage, an objective or a direction that does not exist, or lacks what its objective needs.
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
    if "report" not in options.sentences(registry.plugin("stages", stage, f"--sweep {name}: STAGE").Config):
        raise ConfigError(f"--sweep {name}: STAGE must be a stage with predictions, got {stage!r}")
    score = str(getattr(module, "METRIC", "accuracy"))
    if score not in SCORES:
        raise unknown(f"--sweep {name}: METRIC", score, SCORES)
    metric = f"selection/{score}"
    if chosen == "agreement":  # of what ground truth trains, agreement with its labels is accuracy
        metric = "validation/accuracy" if stage in TRUTHFUL else "validation/best_agreement"
    return Search(name, stage, chosen, metric, score, direction, setting, settings, module.space, source)


def proposed(search: Search, trial: optuna.Trial) -> dict[str, Any]:
    """The options of a trial. Raises ConfigError where the objective may not tune one of them, or its range is none."""
    try:
        found = dict(search.space(trial))
    except Exception as error:  # the file is the user's: whatever is wrong with it is one sentence
        raise ConfigError(f"--sweep {search.name}: its space cannot be drawn from: {type(error).__name__}: {error}") from error
    if "seed" in found:
        raise ConfigError(f"--sweep {search.name}: its space must leave the seed to --search-seeds and --seeds")
    if search.objective == "agreement" and (tuned := sorted(set(found) - IMITATION_SAFE)):
        raise must(
            "objective", f"proxy or oracle for a space with {', '.join(tuned)}, as agreement rewards imitation", "agreement"
        )
    return found


def value(search: Search, results: Sequence[Result]) -> float:
    """The objective of one trial, the mean over its runs. Raises ConfigError where a run does not log it."""
    if missing := next((result for result in results if search.metric not in result.metrics), None):
        raise ConfigError(
            f"--objective {search.objective} needs {search.metric}, which run {missing.run_id} ({missing.name}) does not log"
        )
    return float(np.mean([result.metrics[search.metric] for result in results]))


def configs(search: Search, given: Mapping[str, Any], seeds: Sequence[int], sizes: Mapping[str, Any]) -> list[Any]:
    """The Configs of one trial, for each setting and seed; they report what the objective looks at, and never `test`.

    Raises:
        ConfigError: the stage has no such option, or not with this value.
    """
    kind = registry.plugin("stages", search.stage, "stage").Config
    report = "none" if search.objective == "agreement" else "selection"
    every = [dict(setting) | dict(given) | dict(sizes) for setting in search.settings]
    return [options.parse(kind, one | {"seed": seed, "report": report}) for one in every for seed in seeds]


def command(search: Search, given: Mapping[str, Any]) -> str:
    """What to type for one setting of what is tuned."""
    chosen = {**search.tuned, **given}
    return " ".join(
        ["python -m w2s_mlflow", search.stage, *(f"{exceptions.flag(name)} {value}" for name, value in chosen.items())]
    )
