"""How a space is searched: Ray Tune, Optuna, promotion, a search's life, its confirmation.

The only room that imports Ray. `lifecycle` is where to begin.
"""
