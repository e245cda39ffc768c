"""Control: the ground truth of a few rows of `transfer` (`--gold-rows`), to see how many gold labels the weak ones are worth.

The rows are drawn at random; with one seed, fewer rows are a subset of more rows. Few rows are shown more often: on N of the n
rows of `transfer`, the student is trained for epochs * ceil(n / 4N) epochs, which is at least a quarter of the steps that it
takes on all rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from w2s_mlflow import streams
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import must
from w2s_mlflow.methods.labels import NOBODY
from w2s_mlflow.pipeline import ground_truth

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tracking.recorder import Recorder

LABELLER, GOLD = NOBODY, True
NOTE = "finetuned on the ground truth of some rows"


@checked_dataclass
class Options:
    """The number of rows."""

    gold_rows: int = option(default=50, ge=1)
    """Number of rows of transfer whose ground truth the student is trained on."""


def epochs(context: Context[Any], options: Options) -> int:
    """Return the number of epochs. Raises ConfigError if `transfer` has fewer rows than are to be used."""
    rows = len(context.split.transfer)
    if options.gold_rows > rows:
        raise must("gold_rows", f"at most {rows}, the number of rows of transfer", options.gold_rows)
    return int(context.options.epochs) * math.ceil(rows / (4 * options.gold_rows))


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return the ground truth of the drawn rows as one-hot labels. The validation slice has none."""
    transfer = context.split.transfer
    order = streams.generator(context.options.seed, streams.GOLD_SUBSET).permutation(len(transfer))
    return ground_truth.oracle_labels(context, [transfer[row] for row in order[: options.gold_rows]], recorder)
