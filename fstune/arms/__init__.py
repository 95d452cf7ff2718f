"""One training run: what determines it, how it is trained and evaluated, where it is kept.

An arm knows nothing of the search that asks for it, nor of the arm that it is compared with.
"""
