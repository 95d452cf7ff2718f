"""How far a long pass over rows is: logged now and then, and shown by whoever listens."""

import logging
import time

TOLD_EVERY_S = 2.0
"""What takes longer than this says how far it is, and again after as long."""

_LOG = logging.getLogger(__name__)


class BuildProgress:
    """How far one pass over rows is; it begins when this is made."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, how_far: str) -> None:
        """Says how far it is, unless that was said a short while ago."""
        now = time.monotonic()
        if now - self._told_at > TOLD_EVERY_S:
            self._told_at = now
            _LOG.info("%s", how_far)
