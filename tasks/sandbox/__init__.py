"""Programs that a model writes, run shut in; what is expected of them stays outside."""
