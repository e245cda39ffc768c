"""Time and memory of the default experiment, twice on one empty database: the second time must train nothing.

    python benchmarks/default_experiment.py [--seeds 0..4]

Prints one JSON object: seconds and peak resident memory of either run, and of `--help`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time


def timed(arguments: list[str], directory: str) -> dict[str, float]:
    """Wall seconds of one command, and the largest resident set of its process or one that it waited for, in GB."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db"}
    started = time.perf_counter()
    line = [sys.executable, "-m", "w2s_mlflow", *arguments]
    child = subprocess.Popen(line, cwd=directory, env=environment, stdout=2)
    _, status, used = os.wait4(child.pid, 0)  # its own: RUSAGE_CHILDREN is the most of all children so far
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, line)
    return {"seconds": round(time.perf_counter() - started, 2), "peak_gb": round(used.ru_maxrss / 1e6, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0..4")
    seeds = ["--seeds", parser.parse_args().seeds]
    with tempfile.TemporaryDirectory() as directory:
        seconds = {
            "help": timed(["student", "--help"], directory),
            "first": timed(["main", *seeds], directory),
            "second": timed(["main", *seeds], directory),
        }
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
