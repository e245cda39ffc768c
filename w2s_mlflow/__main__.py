"""Entry point of `python -m w2s_mlflow STAGE --key value`."""

import atexit
import gc

# Importing torch and MLflow allocates about a million live objects: collect garbage less often, and skip them at exit.
gc.set_threshold(100_000)
atexit.register(gc.freeze)  # registered first, so it runs last

from w2s_mlflow.cli.app import main  # noqa: E402 - must follow the gc settings

if __name__ == "__main__":
    main()
