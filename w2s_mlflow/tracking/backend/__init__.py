"""MLflow's tracking servers and databases, and one sentence for each way they cannot be used."""
