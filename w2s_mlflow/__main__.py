"""Entry point of `python -m w2s_mlflow STAGE --key value`."""

import atexit
import gc

# torch and MLflow allocate about a million objects on import, none of them garbage: keep them out of garbage collection.
gc.set_threshold(100_000)
atexit.register(gc.freeze)  # registered first, so it runs last

from w2s_mlflow.cli.app import main  # noqa: E402 - must follow the gc settings

if __name__ == "__main__":
    main()
