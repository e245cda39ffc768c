"""Photograph the MLflow UI for the README: `python docs/screenshots.py URI DIRECTORY`.

URI is a store with the default experiment in it. Needs Chromium on PATH (Debian's package `chromium`). The view of the run
list is kept in the experiment, where the UI offers it under Views.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOST = "mlflow.example"
"""What the browser calls this machine: on localhost the UI would open its assistant over a page seen for the first time."""
TRAINING = "workflowType=machine_learning"
"""The UI's side for model training; the other one is for language-model applications."""
WIDTH = 1400
LOADING = 20_000
"""Milliseconds, of a clock that stands still while the network is waited for, that a page gets to build itself."""
VIEW = "w2s-students"
STUDENTS = (
    "tags.`w2s.stage` = 'student' AND params.task = 'chess' AND params.head = 'reward' AND params.early_stopping = 'none' "
    "AND params.method != 'zero_shot' AND params.method != 'random_weights'"
)
"""Few enough groups for the colours that the UI has."""
COLUMNS = {
    "attributes.`Run Name`": 380,
    "metrics.`test/weak_accuracy`": 130,
    "metrics.`test/accuracy`": 130,
    "metrics.`test/ceiling_accuracy`": 145,
    "metrics.`test/pgr`": 130,
}
"""Columns of the run list, and their widths in pixels."""


CHARTS: tuple[dict[str, Any], ...] = (
    {"type": "BAR", "metricKey": "test/pgr", "runsCountToCompare": 20},
    {
        "type": "SCATTER",
        "xaxis": {"key": "model/parameters", "type": "METRIC"},
        "yaxis": {"key": "test/pgr", "type": "METRIC"},
        "runsCountToCompare": 20,
    },
)
"""Charts of the view, as the UI keeps them: PGR of each group, and over the size of the student."""


class Addresses(NamedTuple):
    """Where a server is: for programs, and for the browser."""

    api: str
    pages: str


def main(uri: str, directory: str) -> None:
    """Write ui_runs.png, ui_charts.png, ui_compare.png and ui_student.png into `directory`."""
    with serving(uri) as server:
        keep_view(server, "0")
        plain, confident = (student(server, method) for method in ("baseline", "confidence"))
        for name, path, height in (
            ("ui_runs", runs_page("0"), 1050),
            ("ui_charts", charts_page("0"), 730),
            ("ui_compare", f'/compare-runs?runs=["{plain}","{confident}"]&experiments=["0"]&{TRAINING}', 2030),
            ("ui_student", f"/experiments/0/runs/{confident}?{TRAINING}", 1490),
        ):
            picture = Path(directory, f"{name}.png").resolve()
            browse(server.pages + path, f"--screenshot={picture}", f"--window-size={WIDTH},{height}")


def browser() -> str | None:
    """The path of the Chromium on PATH, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def serving(uri: str) -> Iterator[Addresses]:
    """Serve the store `uri` on a free port of this machine."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    found = Addresses(f"http://127.0.0.1:{port}", f"http://{HOST}:{port}/#")
    line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    line += ["--allowed-hosts", f"{HOST}:{port},127.0.0.1:{port}", "--cors-allowed-origins", f"http://{HOST}:{port}"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(f"{found.api}/health", process)
            yield found
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    sys.exit(f"mlflow server does not answer at {url}: can {process.args!r} be run?")


def keep_view(server: Addresses, experiment_id: str) -> None:
    """Keep the view of all students, in groups over seeds, in the experiment, as the UI keeps its own."""
    keys = [{"mode": "param", "groupByData": name} for name in ("strong", "method", "weak")]
    state = {
        "searchFilter": STUDENTS,
        "orderByKey": "metrics.`test/accuracy`",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
        "compareRunCharts": [chart | {"uuid": str(number), "metricSectionId": "w2s"} for number, chart in enumerate(CHARTS)],
        "compareRunSections": [{"uuid": "w2s", "name": "PGR", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
    }
    view = {"name": "Students over seeds", "createdAt": int(time.time() * 1000), "state": json.dumps(state)}
    tag = {"experiment_id": experiment_id, "key": f"mlflow.sharedViewState.{VIEW}", "value": json.dumps(view)}
    _post(f"{server.api}/api/2.0/mlflow/experiments/set-experiment-tag", tag)


def runs_page(experiment_id: str) -> str:
    """The path of the run list in the view that `keep_view` kept."""
    return f"/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&{TRAINING}"


def charts_page(experiment_id: str) -> str:
    """The path of the charts in that view."""
    return f"{runs_page(experiment_id)}&compareRunsMode=CHART"


def student(server: Addresses, method: str) -> str:
    """The run id of the largest student of the default experiment with seed 0."""
    query = f"{STUDENTS} AND params.method = '{method}' AND params.strong = 'chess-426k' AND params.seed = '0'"
    found = _post(f"{server.api}/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"], "filter": query})
    if not found.get("runs"):
        sys.exit(f"the store has no run with {query}: run the default experiment in it first")
    run_id: str = found["runs"][0]["info"]["run_id"]
    return run_id


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.load(response)
    return found


def browse(url: str, *options: str) -> str:
    """What Chromium prints (with `--dump-dom`: the page) once it has built the page `url`; it reaches this machine only."""
    program = browser() or sys.exit(f"none of {', '.join(BROWSERS)} is on PATH")
    line = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
    line += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    line += [f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND", f"--virtual-time-budget={LOADING}"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # its processes may outlive it by a moment
        line += [f"--user-data-dir={profile}", *options, url]
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=300).stdout


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
