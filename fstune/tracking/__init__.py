"""A search in MLflow, and MLflow's UI. The only room that imports MLflow.

MLflow is told of records; nothing is ever read back from it to go on with a search.
"""
