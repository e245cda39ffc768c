"""Read runs of version 0.1 under the current names of options, values, tags and metrics."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config, registry
from w2s_mlflow.methods import presets
from w2s_mlflow.validation import Declared, read

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

STAGES = {"link": "student"}
"""Names of stages that have no file in stages/ and, for each, the stage whose options its runs log."""
PARAMS = {"argues": "student_method", "round": "iteration", "turn": "iteration"}
"""Former and current names of parameters that are not options. Each option declares its own former names and values."""
TAGS = {
    "w2s.torn": "w2s.corrupt",
    "w2s.before_run_id": "w2s.baseline_run_id",
    "w2s.contents": "w2s.grid_digest",
    "w2s.human": "w2s.vs_human",
}
METRICS = {
    "align/words": "align/evidence_words",
    "test/before_accuracy": "test/baseline_accuracy",
    "selection/before_accuracy": "selection/baseline_accuracy",
}
MEASURES = {"apart_win_rate": "win_rate_on_disagreements", "by_position": "position_decides_rate"}
MEASURES |= {"strong_right": "always_strong_accuracy"}
"""Former and current names of debate metrics, without their prefixes and the suffixes `_low` and `_high`."""
DEBATES = {"debate/": "debate/", "before/": "align/baseline_", "after/": "align/aligned_"}
"""Former and current prefixes of the names of debate metrics."""
COLUMNS = {"coded": "annotation"}
"""Former and current names of columns of the CSV file that a person fills in (`--error-annotations`)."""
ITERATION = re.compile(r"^(lambda \S+|facilitated by .*?) (?:round|turn) (\d+)")
"""Pattern of names of methods and labels in which version 0.1 called an iteration a round or a turn."""


def with_current_names(run: Result) -> Result:
    """Return the run with the current names and values of its parameters, tags and metrics.

    An imported run is returned unchanged, because the names of its methods are not options.
    """
    if run.imported:
        return run
    return replace(
        run,
        params=_params(STAGES.get(run.stage, run.stage), run.params),
        tags={TAGS.get(name, name): value for name, value in run.tags.items()},
        metrics={_metric(name): value for name, value in run.metrics.items()},
    )


def _params(stage: str, params: Mapping[str, str]) -> dict[str, str]:
    """Replace former names of parameters, and former values of the stage's options, by the current ones."""
    options = _options(stage)
    names = PARAMS | config.former_names(options)
    renamed = {names.get(name, name): value for name, value in params.items()}
    values = {
        name: options[name][1].former_values.get(text, text) if name in options else text for name, text in renamed.items()
    }
    for name in {"method", "student_method", "labels"} & values.keys():
        values[name] = ITERATION.sub(r"\1 iteration \2", values[name])
    if values.get("method") == presets.CUSTOM and presets.PRIMITIVES.keys() <= values.keys():
        values["method"] = presets.name_of({name: read(values[name], *options[name]) for name in presets.PRIMITIVES})
    return values


@functools.cache
def _options(stage: str) -> Mapping[str, tuple[Any, Declared]]:
    """Return the declarations of a stage's options; empty for a stage that does not exist."""
    if stage not in registry.plugins("stages"):
        return {}
    return config.declarations(registry.plugin("stages", stage, "the stage").Config)


def _metric(name: str) -> str:
    """Return the current name of a metric."""
    prefix = next((former for former in DEBATES if name.startswith(former)), None)
    if prefix is None:
        return METRICS.get(name, name)
    bound = next((end for end in ("_low", "_high") if name.endswith(end)), "")
    measure = name.removeprefix(prefix).removesuffix(bound)
    return f"{DEBATES[prefix]}{MEASURES.get(measure, measure)}{bound}"
