"""Future-Seed under the names that programs import; it lives in `model.mechanisms.future_seed`."""

from model.mechanisms.future_seed.gates import Gates, seed_state
from model.mechanisms.future_seed.settings import FutureSeed, Schedule

__all__ = ["FutureSeed", "Gates", "Schedule", "seed_state"]
