"""Storage of results in MLflow.

fingerprint.py identifies a result, claims.py lets only one process make it, and store.py reuses it or calls the code that makes
it. docs/reference/packages.md lists all modules of this package. No other package of w2s_mlflow imports mlflow.
"""
