"""What a user writes: a YAML file, read once, checked whole, and frozen.

`loading` is the way in; `sections` has the values that come out. What is done with a spec is not
here: nothing in this room trains, keeps records or reaches torch, Ray or MLflow.
"""
