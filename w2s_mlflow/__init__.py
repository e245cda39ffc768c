"""w2s_mlflow: weak-to-strong generalization experiments on MLflow."""

__version__ = "0.2.0"
