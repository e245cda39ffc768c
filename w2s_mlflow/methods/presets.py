"""Student methods: presets of the primitive options, and the names of methods.

The primitive options are --loss, --chain, --generative-epochs, --labels and --weights. If one of them is None in a Config, it
gets the value that the method's preset fixes or, if the preset does not fix it, the default in `PRIMITIVES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import must
from w2s_mlflow.methods import chain_models, labels

AUTO, CUSTOM, PLAIN = "auto", "custom", "baseline"
PLUGINS = ("loss", "labels")
"""Primitive options that name a plug-in. `loss:NAME` is the name of the method that combines the baseline with this loss;
`PRESET+loss:NAME` combines a preset with it. `labels:NAME` and `PRESET+labels:NAME` are names of the same form."""
PRIMITIVES: dict[str, Any] = {"loss": "cross_entropy", "chain": None, "generative_epochs": 0}
PRIMITIVES |= {"labels": "weak", "weights": "pretrained"}
FULL = {"loss": "confidence", "chain": chain_models.AUTO, "generative_epochs": 1}
FORMER_METHODS = {"untuned": "zero_shot"}
"""New names of renamed presets, by their names in version 0.1."""
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "bootstrap": {"chain": chain_models.AUTO},
    "generative": {"generative_epochs": 1},
    "full": FULL,
    "full-without-confidence": {**FULL, "loss": "cross_entropy"},
    "full-without-bootstrap": {**FULL, "chain": None},
    "full-without-generative": {**FULL, "generative_epochs": 0},
    "zero_shot": {"labels": "none"},
    "self_training": {"labels": "zero_shot"},
    "best_prompt": {"labels": "best_prompt"},
    "planner": {"labels": "planner"},
    "random_weights": {"weights": "random"},
    "hard_labels": {"labels": "hard"},
    "random_labels": {"labels": "random"},
    "matched_noise": {"labels": "matched_noise"},
    "oracle": {"labels": "oracle"},
    "gold_subset": {"labels": "gold_subset"},
    "debate": {"labels": "debate"},
    "consultancy": {"labels": "consultancy"},
    "no_explanation": {"labels": "no_explanation"},
}
"""Presets by method name: Algorithms 3 to 6, the ablations of Table 2, controls, and methods with labels from debates."""

UNTRAINED = ("none", "best_prompt", "planner")
"""Values of `--labels` for a student that is not trained."""
LABEL_FREE = ("none", "best_prompt")
"""Those for which the student's answers are label-free elicitation: not a planner's, which is given rules of the task."""
GOLD_SUBSET = "gold_subset"
"""Value of `--labels` for a student that is trained on the ground truth of some rows."""
RUN = "run:"
"""Prefix of the value `run:ID` of `--labels`. ID is the id or name of a finished run whose labels of `transfer` are used."""


def primitives(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's primitive options. Values in `given` take precedence.

    Raises:
        ConfigError: a value in `given` contradicts the preset.
    """
    preset = preset_of(method)
    values = PRIMITIVES | (preset or {})
    for name, value in values.items():
        if given[name] is None:
            continue
        if preset is not None and _kind(name, given[name]) != _kind(name, value):
            raise must(name, f"{value} under --method {method} (or leave --method out)", given[name])
        values[name] = given[name]
    return values


def preset_of(method: str) -> dict[str, Any] | None:
    """Return the options that a method fixes: its preset, and any plug-in in its name. Return None for an unknown name."""
    preset, _, plugin = method.rpartition("+") if ":" in method else (method, "", "")
    option, _, name = plugin.partition(":")
    base = METHODS.get(preset or PLAIN)
    if base is None or not plugin:
        return base
    return base | {option: name} if option in PLUGINS else None


def name_of(chosen: Mapping[str, Any]) -> str:
    """Return the name of the method with these options: a preset, a preset with another plug-in (PLUGINS), or `custom`."""
    kinds = {name: _kind(name, value) for name, value in chosen.items()}
    presets = {
        name: {key: _kind(key, value) for key, value in (PRIMITIVES | preset).items()} for name, preset in METHODS.items()
    }
    for name, preset in presets.items():
        if preset == kinds:
            return name
    for option in PLUGINS:
        for name, preset in presets.items():
            if preset | {option: kinds[option]} == kinds:
                return f"{'' if name == PLAIN else f'{name}+'}{option}:{kinds[option]}"
    return CUSTOM


def labels_file(value: str | None) -> str | None:
    """Return `value` if it is the path of a label file, else None. Raises ConfigError if the file does not exist."""
    if value is None or value in labels.names() or labels_run(value) is not None:
        return None
    if not Path(value).expanduser().is_file():
        rule = f"{', '.join(labels.names())}, or a parquet file with the columns id and probabilities, or {RUN}ID"
        raise must("labels", rule, value)
    return value


def labels_run(value: str | None) -> str | None:
    """Return the id or name of the run whose labels of `transfer` are used, or None if `value` names no run."""
    return value.removeprefix(RUN) if value is not None and value.startswith(RUN) else None


def kind_of_labels(value: str | None) -> str:
    """Return the name of the file in methods/labels that makes the training labels; `weak` for labels from a file or run."""
    return value if value in labels.names() else "weak"


def _kind(name: str, value: Any) -> Any:
    """Return a value in the form in which presets are compared: chain and epochs as booleans, a label file or run as `weak`."""
    if name == "labels":
        return kind_of_labels(value)
    return bool(value) if name in ("generative_epochs", "chain") else value
