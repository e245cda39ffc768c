"""The store: what made a result (fingerprint.py), who makes it (claims.py), where it is kept. docs/design.md lists the rooms.

Only here is mlflow imported.
"""
