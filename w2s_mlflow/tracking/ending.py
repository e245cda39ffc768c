"""The end of a run, at a time that orders runs as the store received them.

An end time comes from the clock of the machine that ends the run. Readers ask for the runs that ended since the last time they
looked (run_cache.py), so a run that a machine with a slow clock ends would never be found. So a run ends no earlier than the
latest end that the store has.
"""

from __future__ import annotations

import time

from w2s_mlflow.tracking.backend.server import client, experiment


def finish(run_id: str) -> None:
    """Mark a run of the current experiment as FINISHED, or as changed if it is finished already."""
    client().set_terminated(run_id, "FINISHED", end_time=max(int(time.time() * 1000), _latest() + 1))


def _latest() -> int:
    """Return the latest end time of any run of the experiment; 0 if no run has ended."""
    order = ["attributes.end_time DESC"]
    runs = client().search_runs([experiment().experiment_id], "attributes.end_time > 0", max_results=1, order_by=order)
    return int(runs[0].info.end_time or 0) if runs else 0
