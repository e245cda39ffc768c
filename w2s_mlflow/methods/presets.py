"""A student's methods: presets over its primitives, the names that go with them, and what its labels are.

A Config's primitives are None where they are left out: then they are the method's, or what `PRIMITIVES` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import must
from w2s_mlflow.methods import bootstrapping

AUTO, CUSTOM = "auto", "custom"
PRIMITIVES: dict[str, Any] = {"loss": "cross_entropy", "chain": None, "generative_epochs": 0}
PRIMITIVES |= {"labels": "weak", "weights": "pretrained"}
FULL = {"loss": "confidence", "chain": bootstrapping.AUTO, "generative_epochs": 1}
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "bootstrap": {"chain": bootstrapping.AUTO},
    "generative": {"generative_epochs": 1},
    "full": FULL,
    "full-without-confidence": {**FULL, "loss": "cross_entropy"},
    "full-without-bootstrap": {**FULL, "chain": None},
    "full-without-generative": {**FULL, "generative_epochs": 0},
    "untuned": {"labels": "nothing"},
    "random_weights": {"weights": "random"},
    "hard_labels": {"labels": "hard"},
    "random_labels": {"labels": "random"},
    "oracle": {"labels": "oracle"},
    "debate": {"labels": "debate"},
    "consultancy": {"labels": "consultancy"},
    "no_explanation": {"labels": "no_explanation"},
}
"""Presets over the primitives: Algorithms 3 to 6, the ablation of Table 2, the controls, and labels that a judge has made."""

WEAK = ("weak", "hard")
"""Labels that are a supervisor's."""
GOLD = ("random", "oracle")
"""Labels that ground truth goes into: controls, whose runs are tagged."""
DEBATES = ("debate", "consultancy", "no_explanation")
"""Labels that verdicts make of the supervisor's, by the form of the debates (stages/debate.py)."""
LABELS = (*WEAK, *GOLD, *DEBATES, "nothing")
RUN = "run:"
"""What labels begin with that a finished run gave `transfer`, before its id or name."""
HOW = {
    "weak": "finetuned on",
    "hard": "finetuned on the most probable classes of",
    "random": "finetuned on noise, as often right as",
    "oracle": "finetuned on the ground truth",
    "nothing": "untuned",
    "debate": "finetuned on the labels that debates make of the supervisor's,",
    "consultancy": "finetuned on the labels that a consultant's arguments make of the supervisor's,",
    "no_explanation": "finetuned on the labels that a judge without arguments makes of the supervisor's,",
}
"""What the note of a run says of its labels."""


def primitives(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a method is made of: its own, unless `given`. Raises ConfigError for one given against the method."""
    preset = METHODS.get(method)
    found = PRIMITIVES | (preset or {})
    for name, value in found.items():
        if given[name] is None:
            continue
        if preset is not None and _kind(name, given[name]) != _kind(name, value):
            raise must(name, f"{value} under --method {method} (or leave --method out)", given[name])
        found[name] = given[name]
    return found


def name_of(chosen: Mapping[str, Any]) -> str:
    """The method that is made of these primitives, `custom` where there is none."""
    kinds = {name: _kind(name, value) for name, value in chosen.items()}
    presets = {name: PRIMITIVES | preset for name, preset in METHODS.items()}
    names = (name for name, preset in presets.items() if kinds == {key: _kind(key, preset[key]) for key in preset})
    return next(names, CUSTOM)


def labels_file(labels: str | None) -> str | None:
    """The file of labels from outside, if that is what `labels` is. Raises ConfigError for one that is not there."""
    if labels is None or labels in LABELS or labels_run(labels) is not None:
        return None
    if not Path(labels).expanduser().is_file():
        rule = f"{', '.join(LABELS)}, or a parquet file with the columns id and probabilities, or {RUN}ID"
        raise must("labels", rule, labels)
    return labels


def labels_run(labels: str | None) -> str | None:
    """The run, by its id or name, that has labelled `transfer`, if that is what `labels` is."""
    return labels.removeprefix(RUN) if labels is not None and labels.startswith(RUN) else None


def _kind(name: str, value: Any) -> Any:
    """What a method says of a primitive: labels of a file or a run are weak labels, any chain is one, and so on."""
    if name == "labels" and value not in LABELS:
        return "weak"
    return bool(value) if name in ("generative_epochs", "chain") else value
