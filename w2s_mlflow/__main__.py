"""`python -m w2s_mlflow STAGE --key value`."""

from w2s_mlflow.cli import main

if __name__ == "__main__":
    main()
