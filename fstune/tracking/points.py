"""Records as MLflow's metrics: points of a run's curves, at the steps and times of the records.

A value that is not finite has no point: MLflow's stores refuse or change it.
"""

import math
from collections.abc import Mapping

from mlflow.entities import Metric

from fstune.results.deltas import Delta
from fstune.results.records import Confirmation, RungRecord


def rung_points(rung: RungRecord) -> list[Metric]:
    """Every evaluation on the way to a rung, and the rung's own."""
    return [
        metric
        for point in rung.curve
        for metric in _points(point.deltas, point.step, point.ended_at)
    ]


def confirmation_points(confirmation: Confirmation) -> list[Metric]:
    """A confirmation's comparison under names of its own; none if its arms broke off."""
    found = confirmation.comparison
    if found is None:
        return []
    return _points(found.deltas, found.steps, confirmation.ended_at, "confirm/")


def arm_points(rung: RungRecord, role: str) -> list[Metric]:
    """The scores of one arm (`role`: baseline or variant), under names that both arms share."""
    return [
        metric
        for point in rung.curve
        for metric in _finite(
            {f"arm/{name}": getattr(delta, role) for name, delta in point.deltas.items()},
            point.step,
            point.ended_at,
        )
    ]


def _points(
    deltas: Mapping[str, Delta], step: int, ended_at: float, prefix: str = ""
) -> list[Metric]:
    values: dict[str, float] = {}
    for name, delta in deltas.items():
        values |= {
            f"{prefix}baseline/{name}": delta.baseline,
            f"{prefix}variant/{name}": delta.variant,
            f"{prefix}delta/{name}": delta.mean,
            f"{prefix}delta/{name}_low": delta.low,
            f"{prefix}delta/{name}_high": delta.high,
        }
    return _finite(values, step, ended_at)


def _finite(values: Mapping[str, float], step: int, ended_at: float) -> list[Metric]:
    at_ms = int(ended_at * 1000)
    return [
        Metric(key, value, at_ms, step) for key, value in values.items() if math.isfinite(value)
    ]
