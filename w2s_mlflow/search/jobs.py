"""Jobs of a sweep. A job runs one stage with given options in the current process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_mlflow import registry
from w2s_mlflow.display import printable
from w2s_mlflow.exceptions import FailedTrainingError, memory_error

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

    Say = Callable[[str], None]


class Job(NamedTuple):
    """The name of a stage to run, and its options (an instance of the stage's Config)."""

    stage: str
    config: Any

    def run(self) -> Result:
        """Run the stage. Raises FailedTrainingError if the training diverges or runs out of memory."""
        try:
            result: Result = registry.plugin("stages", self.stage, "stage").run(self.config)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory := memory_error(error, self.stage):
                raise out_of_memory from error
            raise
        return result


def run_job(job: Job, patient: bool, say: Say) -> Result | Exception | None:
    """Run a job and return its result or its error.

    Args:
        patient: what to do if another process is computing a run that the job needs: wait for that run
            (True) or return None (False).
        say: function that shows what the job is doing.
    """
    from w2s_mlflow.tracking import session, source, store

    try:
        source.check_unchanged()
        with session.changed(progress=lambda text: say(printable(text)), wait=patient):
            return job.run()
    except store.BusyError:
        return None
    except FailedTrainingError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)  # the traceback refers to the model and would keep it in memory
    except Exception as error:
        return error
