"""Access to MLflow's tracking servers and databases. Each failure is reported as a one-sentence error."""
