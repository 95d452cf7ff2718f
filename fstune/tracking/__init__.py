"""A search in MLflow, and MLflow's UI. The only room that imports MLflow.

Records are logged there; nothing is ever read back to go on with a search.
"""
