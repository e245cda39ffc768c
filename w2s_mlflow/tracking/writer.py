"""The background writer of a run: one thread that sends the records of a spool in order, each until the server has stored it.

Training adds records to the spool and goes on. MLflow's own asynchronous logging is not used, because it keeps its queue in
memory, sends batches from ten threads in any order, drops a batch that fails, and waits without a limit when the process ends
(mlflow/utils/async_logging/async_logging_queue.py in MLflow 3.17).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import mlflow

from w2s_mlflow.tracking.backend import outages
from w2s_mlflow.tracking.spool import Record, Spool


class Writer:
    """Background writer of one spool. Use it from one thread.

    Args:
        deliver: function that sends a record. It may be called again with the same record, if an answer was lost.
    """

    def __init__(self, spool: Spool, deliver: Callable[[Record], None]) -> None:
        self.spool = spool
        self.problem: BaseException | None = None
        """The last temporary failure, if the server has stored nothing since."""
        self.error: BaseException | None = None
        """The failure that ended the writer, because trying again would not help."""
        self._deliver = deliver
        self._changed = threading.Condition()
        self._pending = spool.pending()
        self._closed = False
        self.thread = threading.Thread(target=self._run, name=f"writer {spool.header.run_id}", daemon=True)
        self.thread.start()

    def put(self, record: Record) -> None:
        """Add a record to the spool. This waits for the local disk only.

        Raises:
            ConfigError: the spool cannot be written.
            BaseException: the failure that ended the writer.
        """
        if self.error is not None:
            raise self.error
        self.spool.add(record)
        with self._changed:
            self._pending += 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all records are stored, at most for `seconds`. Return whether they are.

        Raises:
            BaseException: the failure that ended the writer.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self.error is not None, timeout=seconds)
            if self.error is not None:
                raise self.error
            return not self._pending

    def close(self, *, discard: bool = False) -> None:
        """End the writer without waiting for a request in progress. Keep the spool if a record is not stored.

        A writer that was closed before stays as it is.

        Args:
            discard: whether to remove the spool anyway.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            remove = discard or not self._pending
        self.spool.remove() if remove else self.spool.release()

    def _run(self) -> None:
        failures = 0
        while self._next():
            try:
                self._deliver(self.spool.first())
                self._done()
            except BaseException as error:
                if not outages.is_temporary(error):
                    self._stop(error)
                    return
                self.problem, failures = error, failures + 1
                self._pause(failures)
            else:
                self.problem, failures = None, 0

    def _next(self) -> bool:
        """Wait for a record. Return False if the writer was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed)
            return not self._closed

    def _done(self) -> None:
        with self._changed:
            if not self._closed:  # otherwise another process may use the spool by now
                self.spool.remove_first()
                self._pending -= 1
                self._changed.notify_all()

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self.error = error
            self._changed.notify_all()

    def _pause(self, failures: int) -> None:
        """Wait before the next attempt: as long as the server asks for, else longer after each failure."""
        until = time.monotonic() + outages.pause(mlflow.get_tracking_uri(), failures)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=max(0.0, until - time.monotonic()))
