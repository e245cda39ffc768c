"""Make the paper's tables, figures and a report from finished runs, recomputing every number from stored predictions.

Nothing is trained. Data that cannot be used, such as damaged files and numbers that the predictions do not reproduce, is
excluded; the table `left_out` and the report's caveats list it with the reason. An analysis of the same runs with the same code
is reused.

Artifacts: `report.html`; `tables/<name>.csv`, `.md` and `.tex`; `figures/<name>.png`, `.svg` and an interactive `.html`.
Metrics, aggregated over seeds: `<label>/accuracy`, `<label>/pgr`, `<label>/pgr_low`, `<label>/pgr_high` and `<label>/n`, where
<label> consists of the task, the models, the method and its options, and n is the number of seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.analysis import build, coded_errors
from w2s_mlflow.analysis.build import Config as Config

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result


def run(config: Config) -> Result:
    """Analyse finished runs and record the analysis as a run. Raises ConfigError if no student or rule is selected."""
    from w2s_mlflow.tracking import store

    codes, runs = coded_errors.read(config.error_annotations) if config.error_annotations else {}, build.pull(config)
    request = store.RunRequest(
        "analyze", build.parts(config, runs, codes), config, {}, {}, "Tables, figures and a report of finished runs."
    )
    return store.produce(request, lambda recorder: build.record(build.load(runs, codes), recorder))
