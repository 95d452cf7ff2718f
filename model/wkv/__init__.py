"""The WKV-7 recurrence: one operator, several ways to compute it."""

from model.wkv.backends import BACKENDS
from model.wkv.dispatch import wkv7

__all__ = ["BACKENDS", "wkv7"]
