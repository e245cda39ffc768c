"""Runs: what made a result (fingerprint.py), and where results are kept (store.py, the only file that imports mlflow)."""
