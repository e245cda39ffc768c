"""The MLflow store: fingerprints (fingerprint.py), claims (claims.py) and runs. docs/reference/packages.md lists the modules.

Only this package imports mlflow.
"""
