"""Mechanisms: what is added to the model in one arm of a pair and not in the other.

One folder each: `settings.py` declares it, free of torch (fields, what they refuse, what can do
nothing), and a module beside it acts. `registry` names them; a package outside brings its own by an
entry point. What a mechanism may do is in `mechanism` and `acting`.
"""
