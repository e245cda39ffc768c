"""From tracked runs to the paper's tables, figures and a report: every number recomputed from stored predictions.

Nothing is trained. What does not count (a damaged file, a number that predictions do not give, ...) is named with the rule that
says so, in the table `excluded_runs` and among the report's caveats. An analysis of the same runs by the same code is reused.

Artifacts: `report.html`; `tables/<name>.csv`, `.md` and `.tex`; `figures/<name>.png`, `.svg` and an interactive `.html`.
Metrics: the aggregates `<label>/pgr` and `.../accuracy` over seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.analysis import build, coded_errors
from w2s_mlflow.analysis.build import Config as Config

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result


def run(config: Config) -> Result:
    """Analyse finished runs into a run of its own. Raises ConfigError where there is no student or rule among them."""
    from w2s_mlflow.tracking import store

    codes, found = coded_errors.read(config.coded) if config.coded else {}, build.pull(config)
    request = store.RunRequest(
        "analyze", build.parts(config, found, codes), config, {}, {}, "Tables, figures and a report of finished runs."
    )
    return store.produce(request, lambda recorder: build.record(build.load(found, codes), recorder))
