"""Where things are kept unless another place is named. Nothing is imported: all may use it."""

from pathlib import Path

RUNS = Path("mlruns")
"""Folder of all that runs write, below the working directory."""
