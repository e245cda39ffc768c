"""The MLflow store: fingerprints (fingerprint.py), claims (claims.py) and runs. docs/design.md lists the modules.

mlflow is imported in this package only.
"""
