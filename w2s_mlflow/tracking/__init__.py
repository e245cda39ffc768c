"""Runs: what made a result (fingerprint.py), the server in use (server.py), its runs (store.py).

Only here is mlflow imported.
"""
