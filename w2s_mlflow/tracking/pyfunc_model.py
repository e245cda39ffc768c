"""Pyfunc script of a logged model (models-from-code): MLflow copies it into the model and runs it to load the model.

A model that is logged in this way contains no pickled objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference, saved_heads
from w2s_mlflow.modeling.heads import Head, LMChoice, Reward
from w2s_mlflow.records import Example, Floats


class Answers(PythonModel):
    """Pyfunc model that predicts class probabilities with a fitted head."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the head from the model's artifacts."""
        self.head = saved_heads.load(Path(context.artifacts["head"]))

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Floats:
        """Return the class probabilities of N rows as float32 of shape (N, C), where C is the number of classes.

        Each row has two columns, `segments` and `candidates`, which hold lists of strings.

        Raises:
            MlflowException: the head cannot score one of the rows. A model server then answers with HTTP status 400.
        """
        try:
            examples = examples_of(self.head, model_input)
            return inference.probabilities(self.head, self.head.encode(examples))
        except ConfigError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def examples_of(head: Head, table: pd.DataFrame) -> Sequence[Example]:
    """Convert the rows of a table to examples. Raises ConfigError if their segments or candidates are invalid for `head`."""
    rows = zip(table["segments"], table["candidates"], strict=True)
    examples = [Example(str(row), str(row), tuple(texts), tuple(words)) for row, (texts, words) in enumerate(rows)]
    if not examples or not all(example.segments for example in examples):
        raise ConfigError("there must be at least one row, and each row must have at least one text in `segments`")
    counts = sorted({len(example.candidates) for example in examples})
    if isinstance(head, Reward) and counts != [2]:
        raise ConfigError(f"each row must have two responses in `candidates`, got rows with {counts} responses")
    if isinstance(head, LMChoice) and (len(counts) > 1 or counts[0] == 0):
        raise ConfigError(
            f"all rows must have the same number of words in `candidates`, at least one, got rows with {counts} words"
        )
    return examples


mlflow.models.set_model(Answers())
