"""Storage of results in MLflow: fingerprints (fingerprint.py), claims (claims.py), and making or reusing a result (store.py).

docs/reference/packages.md lists the modules. No other package of w2s_mlflow imports mlflow.
"""
