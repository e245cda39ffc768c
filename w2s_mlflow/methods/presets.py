"""Student methods: presets of the primitive options, their names, and the kinds of labels.

A primitive option that is None in a Config takes the method's value or, if there is none, its value in `PRIMITIVES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import must
from w2s_mlflow.methods import bootstrapping

AUTO, CUSTOM, PLAIN = "auto", "custom", "baseline"
LOSS = "loss:"
"""Prefix of the loss in a method name: `loss:NAME`, or `PRESET+loss:NAME` for a preset with another loss."""
PRIMITIVES: dict[str, Any] = {"loss": "cross_entropy", "chain": None, "generative_epochs": 0}
PRIMITIVES |= {"labels": "weak", "weights": "pretrained"}
FULL = {"loss": "confidence", "chain": bootstrapping.AUTO, "generative_epochs": 1}
FORMER_METHODS = {"untuned": "zero_shot"}
"""Present names of presets by their names in version 0.1."""
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "bootstrap": {"chain": bootstrapping.AUTO},
    "generative": {"generative_epochs": 1},
    "full": FULL,
    "full-without-confidence": {**FULL, "loss": "cross_entropy"},
    "full-without-bootstrap": {**FULL, "chain": None},
    "full-without-generative": {**FULL, "generative_epochs": 0},
    "zero_shot": {"labels": "none"},
    "random_weights": {"weights": "random"},
    "hard_labels": {"labels": "hard"},
    "random_labels": {"labels": "random"},
    "oracle": {"labels": "oracle"},
    "debate": {"labels": "debate"},
    "consultancy": {"labels": "consultancy"},
    "no_explanation": {"labels": "no_explanation"},
}
"""Presets by method name: Algorithms 3 to 6, the ablations of Table 2, controls, and labels decided by a judge."""

WEAK = ("weak", "hard")
"""Labels made by a supervisor."""
GOLD = ("random", "oracle")
"""Control labels, which use ground truth; students trained on them are tagged `w2s.gold`."""
DEBATES = ("debate", "consultancy", "no_explanation")
"""Labels that combine weak labels with a judge's verdicts, each named after its debate protocol (stages/debate.py)."""
LABELS = (*WEAK, *GOLD, *DEBATES, "none")
RUN = "run:"
"""Prefix of the id or name of a finished run whose labels of `transfer` are used."""
HOW = {
    "weak": "finetuned on",
    "hard": "finetuned on the most probable classes of",
    "random": "finetuned on noise, as often right as",
    "oracle": "finetuned on the ground truth",
    "none": "not finetuned",
    "debate": "finetuned on the labels that debates make of the supervisor's,",
    "consultancy": "finetuned on the labels that a consultant's arguments make of the supervisor's,",
    "no_explanation": "finetuned on the labels that a judge without arguments makes of the supervisor's,",
}
"""Phrase for each kind of labels, used in a run's note."""


def primitives(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's primitive options, overridden by `given`. Raises ConfigError if `given` contradicts the method."""
    preset = preset_of(method)
    found = PRIMITIVES | (preset or {})
    for name, value in found.items():
        if given[name] is None:
            continue
        if preset is not None and _kind(name, given[name]) != _kind(name, value):
            raise must(name, f"{value} under --method {method} (or leave --method out)", given[name])
        found[name] = given[name]
    return found


def preset_of(method: str) -> dict[str, Any] | None:
    """Return the options that a preset, `loss:NAME` or `PRESET+loss:NAME` fixes; None for any other method name."""
    if LOSS not in method:
        return METHODS.get(method)
    preset, _, loss = method.partition(LOSS)
    if not preset:
        return {"loss": loss}
    base = METHODS.get(preset.removesuffix("+"))
    return base | {"loss": loss} if base is not None and preset.endswith("+") else None


def name_of(chosen: Mapping[str, Any]) -> str:
    """Return the name of the method with these primitive options: a preset, a preset with another loss, or `custom`."""
    kinds = {name: _kind(name, value) for name, value in chosen.items()}
    presets = {name: {key: _kind(key, value) for key, value in (PRIMITIVES | own).items()} for name, own in METHODS.items()}
    if exact := [name for name, preset in presets.items() if preset == kinds]:
        return exact[0]
    other_loss = [name for name, preset in presets.items() if preset | {"loss": kinds["loss"]} == kinds]
    if not other_loss:
        return CUSTOM
    loss = f"{LOSS}{chosen['loss']}"
    return loss if other_loss[0] == PLAIN else f"{other_loss[0]}+{loss}"


def labels_file(labels: str | None) -> str | None:
    """Return `labels` if it is the path of a label file, else None. Raises ConfigError if the file does not exist."""
    if labels is None or labels in LABELS or labels_run(labels) is not None:
        return None
    if not Path(labels).expanduser().is_file():
        rule = f"{', '.join(LABELS)}, or a parquet file with the columns id and probabilities, or {RUN}ID"
        raise must("labels", rule, labels)
    return labels


def labels_run(labels: str | None) -> str | None:
    """Return the id or name of the run whose labels of `transfer` are used, or None if `labels` names no run."""
    return labels.removeprefix(RUN) if labels is not None and labels.startswith(RUN) else None


def _kind(name: str, value: Any) -> Any:
    """Reduce a value to what methods fix: labels from a file or run become `weak`, chains and epoch counts booleans."""
    if name == "labels" and value not in LABELS:
        return "weak"
    return bool(value) if name in ("generative_epochs", "chain") else value
