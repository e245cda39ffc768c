"""Select the runs of an analysis, and write their tables, figures and report."""

from __future__ import annotations

import functools
import hashlib
import math
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from w2s_mlflow import analysis, registry
from w2s_mlflow.analysis import collapse, declared_claims, former_names, frames, report, selection
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tables import LABEL, Frames

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd

    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1
STAGES = ("supervisor", "ceiling", "student", "link", "generative", "rule", "probe", "errors", "facilitate", "debate", "align")
"""Stages whose runs are analysed."""


@checked_dataclass
class Config:
    """Options that select the runs to analyse."""

    filter: str = ""
    """MLflow filter string that selects runs, such as "params.task = 'chess'". Empty: all finished runs."""
    experiments: str = ""
    """Names of the experiments to analyse, separated by commas. Empty: the current experiment."""
    error_annotations: str | None = option(default=None, unset="none", formerly="coded")
    """CSV file of the table error_examples, with the column `annotation` filled in by a person; `none`: no annotations."""


def pull(config: Config) -> list[Result]:
    """Return the finished runs that the options select, the oldest first, and then the runs that they depend on.

    The list ends with the students whose loss was not finite, and with the sweeps that declared a claim.

    Raises:
        ConfigError: no student or rule is selected, or an option is invalid.
    """
    from w2s_mlflow.tracking import results, run_cache
    from w2s_mlflow.tracking.backend import server

    ids = server.experiment_ids(config.experiments)
    runs = results.finished(config.filter, ids) if config.filter else [run for id_ in ids for run in run_cache.finished(id_)]
    if not any(result.stage in frames.ANSWERS for result in runs):
        if config.filter:
            raise must("filter", "an MLflow filter string that selects a finished student or rule", repr(config.filter))
        raise ConfigError("there is no finished student to analyse: run `python -m w2s_mlflow student` or `main` first")
    finished = {run.fingerprint for run in runs}
    diverged = [run for run in collapse.diverged(config.filter, ids) if run.fingerprint not in finished]
    selected = load_complete([result for result in runs if result.stage in STAGES])
    return [*selected, *diverged, *declared_claims.declarations(ids)]


def load_complete(runs: Iterable[Result]) -> list[Result]:
    """Return the given runs and all runs that they were made from or are compared with, even if a filter excludes these."""
    from w2s_mlflow.tracking import results

    run_by_id = {result.run_id: result for result in runs}
    pending = list(run_by_id.values())
    while missing := {run_id for result in pending for _, run_id in selection.links(result)} - run_by_id.keys():
        pending = [results.result(run, reused=True) for run in results.by_id(missing)]
        run_by_id |= {result.run_id: result for result in pending}  # `by_id` does not return permanently deleted runs
    return list(run_by_id.values())


def load(runs: Iterable[Result], codes: Mapping[tuple[str, str], str] | None = None) -> Frames:
    """Build the frames for tables and figures. `codes` are error types assigned by a person (analysis/coded_errors.py)."""
    return frames.frames([former_names.with_current_names(run) for run in load_complete(runs)], codes)


def record(frames: Frames, recorder: Recorder) -> None:
    """Log the report and all non-empty tables and figures as artifacts, and the values of `aggregates` as metrics."""
    tables = {}
    for name in registry.plugins("tables"):
        plugin = registry.plugin("tables", name, "table")
        tables[name] = table, _ = plugin.table(*_frames_for(frames, plugin)), plugin.CAPTION
        if len(table):
            recorder.text(f"tables/{name}.csv", table.to_csv(index=False))
            recorder.text(f"tables/{name}.md", f"{plugin.CAPTION}\n\n{report.markdown(table)}")
            if len(table) <= report.ROWS:  # longer tables are not meant for papers
                recorder.text(f"tables/{name}.tex", report.latex(table))
    recorder.text("report.html", report.html(frames, tables, _figures(frames, recorder)))
    recorder.metrics(aggregates(tables["pgr"][0]))


def _figures(frames: Frames, recorder: Recorder) -> list[dict[str, str]]:
    """Write the figures, and return the name, SVG and caption of each."""
    from w2s_mlflow.figures import _interactive, save

    figures = []
    for name in registry.plugins("figures"):
        plugin = registry.plugin("figures", name, "figure")
        draw = functools.partial(plugin.figure, *_frames_for(frames, plugin))
        fig = save(draw, recorder.directory / "figures" / f"{name}.png")
        if not fig.axes:
            continue
        fig.set_layout_engine("none")  # draw the SVG with the layout of the PNG
        svg = _interactive.svg(fig, name)
        recorder.text(f"figures/{name}.svg", svg)
        recorder.text(f"figures/{name}.html", _interactive.page(svg, name, plugin.CAPTION))
        figures.append({"name": name, "svg": svg, "caption": plugin.CAPTION})
    return figures


def _frames_for(frames: Frames, plugin: ModuleType) -> list[pd.DataFrame]:
    """Return the frames that a table or figure function takes as arguments."""
    return [getattr(frames, name) for name in plugin.FRAMES]


def aggregates(pgr: pd.DataFrame) -> dict[str, float]:
    """Return metrics of each row of the PGR table, named after the row's label: accuracy, PGR, PGR's interval and n."""
    from w2s_mlflow.tracking import names

    metrics = {}
    for row in pgr.to_dict("records"):
        label = " ".join(str(row[name]) for name in LABEL if row[name] not in ("", NONE)).replace("=", " ")
        for name in ("accuracy", "pgr", "pgr_low", "pgr_high", "n"):
            if math.isfinite(row.get(name, math.nan)):
                metrics[names.metric(label, name)] = row[name]
    return metrics


def parts(config: Config, runs: Sequence[Result], codes: Mapping[tuple[str, str], str]) -> FingerprintParts:
    """Return the parts of an analysis's fingerprint: options, run artifacts and metrics, and code of the analysis."""
    from w2s_mlflow.tracking import fingerprint, source

    # Skip NaN and infinity: other programs may have logged them, but canonical JSON cannot hold them.
    claims = sorted({run.params[declared_claims.PARAM] for run in runs if run.stage == declared_claims.STAGE})
    runs = [run for run in runs if run.stage != declared_claims.STAGE]
    numbers = [sorted((name, value) for name, value in run.metrics.items() if math.isfinite(value)) for run in runs]
    run_contents = sorted(
        [run.run_id, sorted(run.digests.items()), metrics] for run, metrics in zip(runs, numbers, strict=True)
    )
    annotations = [[*key, code] for key, code in sorted(codes.items())]
    roots = [f"{folder}.{name}" for folder in ("tables", "figures") for name in registry.plugins(folder)]
    roots += [f"analysis.{module.name}" for module in pkgutil.iter_modules(analysis.__path__)]
    return fingerprint.FingerprintParts(
        stage="analyze",
        version=VERSION,
        options={"filter": config.filter, "experiments": config.experiments},
        data=hashlib.sha256(canonical_json([run_contents, annotations, claims]).encode()).hexdigest()[:32],
        inputs={},
        libraries={},
        source=source.digests([*roots, "metrics"]),
    )
