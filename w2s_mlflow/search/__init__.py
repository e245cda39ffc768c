"""Grid sweeps and Optuna searches, and the worker pools that run them. No other package imports Optuna."""
