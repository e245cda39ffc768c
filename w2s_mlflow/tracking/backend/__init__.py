"""Access to MLflow's tracking servers and databases, with a one-sentence error for each failure."""
