"""`python -m w2s_mlflow STAGE --key value`."""

import atexit
import gc

# torch and MLflow make a million objects as they load, none of them garbage: look through them neither now nor at the end.
gc.set_threshold(100_000)
atexit.register(gc.freeze)  # what is registered first is done last

from w2s_mlflow.cli.app import main  # noqa: E402 - what it loads is meant

if __name__ == "__main__":
    main()
