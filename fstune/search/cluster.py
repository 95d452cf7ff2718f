"""Ray, for as long as a search is held: started here, or a cluster's that is joined; and ended.

What runs under it is in `tuner` and `trainable`. RAY_ADDRESS, which Ray itself reads too, names the
cluster.
"""

import gc
import os
import socket
from typing import Any

import ray
import torch

from fstune.errors import InputError
from fstune.machine import WORKER_VARIABLES, arm_device, cores
from fstune.specs.sections import SearchSpec

MAX_WORKER_LOSSES = 3
"""How often a trial may lose its worker (a kill, the machine's memory) before it is given up."""


CLUSTER_PATIENCE_S = 5.0
"""How long a cluster's head may take to answer."""


def require_cluster(spec: SearchSpec) -> None:
    """Refuse a cluster that nobody answers for: Ray itself would try for minutes.

    Raises:
        InputError: says where it was sought.
    """
    host, _, port = os.environ.get("RAY_ADDRESS", "").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CLUSTER_PATIENCE_S).close()
    except OSError as error:
        raise InputError(
            f"RAY_ADDRESS={host}:{port}: nobody answers there ({error}); start a cluster, or "
            f"leave it unset to run on this machine; then `fstune resume {spec.name}`"
        ) from error


def gpus_per_trial(spec: SearchSpec) -> float:
    """What each of the trials that run at the same time has of the GPUs."""
    gpus = spec.resources.gpus
    if gpus is None:
        gpus = min(1, _gpus_there())
    return gpus / spec.resources.concurrent_trials


def _gpus_there() -> int:
    """GPUs of the cluster that was joined, or of this machine."""
    if os.environ.get("RAY_ADDRESS") and ray.is_initialized():
        return int(ray.cluster_resources().get("GPU", 0))
    return torch.cuda.device_count() if arm_device(None).kind == "cuda" else 0


def start_ray(spec: SearchSpec) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray here and for this search alone.

    Raises:
        InputError: if the cluster refuses the connection.
    """
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "WARNING",
        "runtime_env": {"env_vars": WORKER_VARIABLES},
    }
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        settings |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": max(cores(), spec.resources.concurrent_trials),
            # Trials hand over paths and numbers, never data.
            "object_store_memory": 128 * 2**20,
            # Ray's own 15 lets any other work keep the launches of kernels waiting.
            "_system_config": {"worker_niceness": 0},
        }
    try:
        ray.init(**settings)
    except ConnectionError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray cluster there accepts the connection; if one runs, set "
            "RAY_AUTH_MODE=token and have its ~/.ray/auth_token; then "
            f"`fstune resume {spec.name}`"
        ) from error


def stop_ray() -> None:
    """End Ray, with no garbage collected meanwhile by any thread.

    Tune leaves references to Ray's objects in cycles. Where another thread comes to collect one
    while Ray goes down, Ray ends the whole process, without a word.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
