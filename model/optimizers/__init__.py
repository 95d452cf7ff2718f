"""Optimisers of the model's parameters, each with settings of its own; a mechanism's have AdamW.

One file each, free of torch until it is asked to build. `registry` names them; a package outside
brings its own by an entry point.
"""
