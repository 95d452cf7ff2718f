"""A model for other programs: an arm's weights, a folder for transformers, a winner in MLflow."""
