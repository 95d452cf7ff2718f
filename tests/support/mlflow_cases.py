"""What MLflow should hold of a trial, and what it holds."""

from typing import Any

from mlflow import MlflowClient

from fstune.results.records import RungRecord

PARTS = ("baseline/{}", "variant/{}", "delta/{}", "delta/{}_low", "delta/{}_high")

ENVIRONMENT = {"device": "CPU", "version.torch": "2", "commit": "abc", "code": "def"}


DATASETS = {"rightcopy-train": "a" * 64, "rightcopy-validation": "b" * 64}


def points(client: MlflowClient, run: Any) -> dict[str, list[tuple[int, float, int]]]:
    """Step, value and time of every point of every metric."""
    return {
        key: sorted(
            (metric.step, metric.value, metric.timestamp)
            for metric in client.get_metric_history(run.info.run_id, key)
        )
        for key in run.data.metrics
    }


def wanted_points(records: list[RungRecord]) -> dict[str, list[tuple[int, float, int]]]:
    wanted: dict[str, list[tuple[int, float, int]]] = {}
    for point in (point for record in records for point in record.curve):
        for name, delta in point.deltas.items():
            values = (delta.baseline, delta.variant, delta.mean, delta.low, delta.high)
            for part, value in zip(PARTS, values, strict=True):
                at_ms = int(point.ended_at * 1000)
                wanted.setdefault(part.format(name), []).append((point.step, value, at_ms))
    return {key: sorted(values) for key, values in wanted.items()}
