"""Entry point of `python -m w2s_mlflow COMMAND --name value`."""

import atexit
import gc

# Torch and MLflow allocate about a million objects on import: collect garbage less often, and not at all at exit.
gc.set_threshold(100_000)
atexit.register(gc.freeze)  # atexit runs this function last, because it is registered first

from w2s_mlflow.cli import stopping  # noqa: E402 - import after the garbage collector is set up
from w2s_mlflow.cli.app import main  # noqa: E402

if __name__ == "__main__":
    stopping.end_in_time()
    main()
