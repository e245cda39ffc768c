"""Grids and searches: spaces, studies, storage and workers; the only package that imports Optuna."""
