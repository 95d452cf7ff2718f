"""The WKV-7 recurrence: one operator, several ways to compute it."""

from model.wkv.dispatch import BACKENDS, wkv7

__all__ = ["BACKENDS", "wkv7"]
