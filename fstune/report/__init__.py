"""What a search found, shown: terminal, tables, page, figures, and every figure verified again.

Nothing is decided here: ranks and verdicts come from `results`.
"""
