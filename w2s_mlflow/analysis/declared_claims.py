"""The claims that sweeps declared before they ran, read from the parameter `claim` of their parent runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from w2s_mlflow.tables import CLAIMS

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

PARAM = "claim"
STAGE = "sweep"


def declarations(experiment_ids: Sequence[str]) -> list[Result]:
    """Return the parent runs of sweeps with a claim, oldest first, whether they finished or not."""
    from w2s_mlflow.tracking import results

    sweeps = results.pages(f"tags.`w2s.stage` = '{STAGE}'", experiment_ids)
    return [results.result(run, reused=True) for run in sweeps if PARAM in run.data.params]


def frame(sweeps: Iterable[Result]) -> pd.DataFrame:
    """Return the frame `claims`. A claim that several sweeps declared in the same words has the name of the first."""
    import pandas as pd

    names: dict[str, str] = {}
    for sweep in sweeps:
        names.setdefault(sweep.params[PARAM], sweep.name)
    rows = [{"claim": name} | row for text, name in names.items() for row in json.loads(text)]
    return pd.DataFrame(rows, columns=list(CLAIMS))
