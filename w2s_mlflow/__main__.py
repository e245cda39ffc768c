"""`python -m w2s_mlflow STAGE --key value`."""

import gc

gc.set_threshold(100_000)  # torch and MLflow make a million objects as they load, none of them garbage

from w2s_mlflow.cli import main  # noqa: E402 - what it loads is meant

if __name__ == "__main__":
    main()
