"""Mechanisms: what is added to the model in one arm of a pair and not in the other.

One folder each: `settings.py` has its fields and what they refuse, `mechanism.py` what they come to
(both free of torch), and a module beside them acts. `registry` names them; a package outside brings
its own by an entry point. What a mechanism may do is in `mechanism` and `acting`.
"""
