"""The largest batch that fits: tried out, on the arms of a space that need the most memory.

A fresh worker process trains two steps and evaluates a batch at each size that is tried, so that
nothing of the search is hurt by running out of memory, not even by being killed for it. What was
found is kept per device, versions and spec.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fstune.arms.inputs import checkpoint_config, gather
from fstune.arms.memory import Step, step_memory
from fstune.errors import FstuneError, InputError
from fstune.files import digest_of, write_json
from fstune.machine import WORKER_VARIABLES, arm_device, describe
from fstune.results.pairing import arms_of
from fstune.specs.loading import locate
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings, Scalar
from fstune.specs.space import Space
from model.mechanisms import registry
from model.optimizers import registry as optimizers
from model.shortage import out_of_memory

LARGEST = 4096
"""No batch over this is tried."""


PRECISION = 16
"""The largest batch is found to within a sixteenth: each try costs a worker."""


_WEIGHTY = ("task.", "model.init.", "model.precision", "train.parameters", "train.optimizer")
"""What a step's memory depends on, beside the mechanisms."""


@dataclass(frozen=True)
class Probed:
    """What was found."""

    batch_size: int
    """The largest that fits, to within a sixteenth; 0 if a single example does not."""
    peak_memory_gb: float
    """In use at that size, in GB (10⁹ bytes): on the device, or of the whole process on a CPU."""
    stopped_by: str
    """What a larger batch met: memory, or the number of training examples."""
    candidate: dict[str, Scalar]
    """What was tried: its variant; its baseline too, where more than the mechanism differs."""


@dataclass(frozen=True)
class _Attempt:
    """One size in the worker."""

    size: int
    outcome: str
    """fits, memory, or the error that it failed with."""
    peak_memory_gb: float = 0.0


def probe(spec: SearchSpec, runs: Path, memory_gb: float | None = None) -> Probed:
    """The largest batch of training examples that fits, for every arm of a spec.

    Args:
        spec: a resolved spec.
        runs: folder of all that runs write; holds what was found before.
        memory_gb: probe as if there were only so much memory, in GB (10⁹ bytes).

    Raises:
        FstuneError: if a step fails for another reason than memory, with that reason.
    """
    candidate = heaviest(spec)
    cache = runs.resolve() / "cache"
    [both] = arms_of(spec, candidate, cache, [0])
    arms, examples = [both.variant.settings], len(both.variant_data.train)
    if both.baseline.settings != arms[0].without():
        arms.append(both.baseline.settings)
        examples = min(examples, len(both.baseline_data.train))
    how = {
        "memory_gb": memory_gb,
        "checkpoint_layers": spec.resources.checkpoint_layers,
        "gpu": spec.resources.gpus != 0,
    }
    asked = {
        "arms": [arm.model_dump(mode="json", exclude={"train": {"batch_size"}}) for arm in arms],
        "environment": describe(),
        "examples": examples,
        **how,
    }
    kept = cache / f"probe-{digest_of(asked)}.json"
    if kept.exists():
        return Probed(**json.loads(kept.read_text()))
    order = {"arms": [arm.model_dump_json() for arm in arms], "cache": str(cache), **how}
    found = _search(order, min(examples, LARGEST), candidate)
    write_json(kept, asdict(found))
    return found


def estimated(
    spec: SearchSpec, tokens: int, memory_gb: float, data_dirs: Sequence[Path]
) -> list[str]:
    """What the memory model says of a spec's heaviest arm, in lines for people.

    Args:
        spec: a loaded spec; of its files only a checkpoint is needed.
        tokens: of each prompt.
        memory_gb: memory of the device, in GB (10⁹ bytes).
        data_dirs: where a checkpoint is looked for.

    Raises:
        InputError: a checkpoint that is nowhere.
    """
    _, variant = spec.settings(heaviest(spec))
    path = variant.model.checkpoint
    config = variant.model.init or checkpoint_config(locate(path or "", data_dirs))
    answer = getattr(variant.task, "max_answer_tokens", 1)
    lines = []
    for recompute in (False, True):
        step = Step.of(config, variant, recompute)
        memory = step_memory(step, tokens, answer)
        how = "layers recomputed" if recompute else "all activations kept"
        lines.append(
            f"{how}: largest batch {memory.largest_batch(memory_gb)} in {memory_gb:g} GB; "
            f"{memory.fixed / 1e9:.2f} GB for weights and optimiser, "
            f"{memory.per_row / 1e9:.2f} GB a row of {tokens} tokens"
        )
    return lines


def heaviest(spec: SearchSpec) -> dict[str, Scalar]:
    """The candidate whose variant needs the most memory.

    The longest prompts and the largest model first, all of it trained and in float32; then what
    each mechanism says of its settings.
    """
    space = Space(spec.space)
    paths = [path for path in space.paths if path.startswith(_WEIGHTY) or registry.of_path(path)]
    corners = space.corners(paths, limit=4096)
    return max(corners, key=lambda corner: _weight(spec, corner), default={})


_A_MATRIX = "blocks.0.att.key.weight"
"""Of the kind that most of a model's parameters are; optimisers are told apart by it."""


def _weight(spec: SearchSpec, candidate: dict[str, Scalar]) -> tuple[object, ...]:
    sizes = sum(
        float(size)
        for path, size in candidate.items()
        if path.startswith(("task.", "model.init.")) and isinstance(size, int | float)
    )
    _, variant = spec.settings(candidate)
    return (
        candidate.get("task.control") == "repeat_prompt",
        sizes,
        candidate.get("train.parameters") != "gates",
        candidate.get("model.precision") != "bf16",
        optimizers.get(variant.train.optimizer).state_bytes(_A_MATRIX, (1, 1)),
        *(registry.get(name).weight(own) for name, own in variant.mechanisms.items()),
    )


def _search(order: Mapping[str, object], most: int, candidate: dict[str, Scalar]) -> Probed:
    """Doubles until it does not fit, then halves the gap."""
    fits, peak, too_large = 0, 0.0, most + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "order.json"
        while too_large - fits > max(1, fits // PRECISION):
            sizes = list(_doubling(fits, too_large)) or [(fits + too_large) // 2]
            write_json(path, {**order, "sizes": sizes})
            for attempt in _attempts(path, sizes):
                if attempt.outcome == "fits":
                    fits, peak = attempt.size, attempt.peak_memory_gb
                elif attempt.outcome == "memory":
                    too_large = attempt.size
                else:
                    raise FstuneError(f"a batch of {attempt.size} failed: {attempt.outcome}")
    stopped_by = "memory" if too_large <= most else f"examples to train on or to try: {most}"
    return Probed(fits, peak, stopped_by, candidate)


def _doubling(fits: int, too_large: int) -> Iterator[int]:
    """Sizes to try one after the other before anything was too large."""
    size = max(1, 2 * fits)
    while size < too_large:
        yield size
        size *= 2


def _attempts(order: Path, sizes: list[int]) -> Iterator[_Attempt]:
    """What a fresh worker tells of each size, up to the first that does not fit."""
    done = subprocess.run(
        [sys.executable, "-m", "fstune.search.probe", str(order)],
        env=os.environ | WORKER_VARIABLES,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [_Attempt(**json.loads(line)) for line in done.stdout.splitlines()]
    yield from told
    if done.returncode == 0:
        return
    # A worker that was killed, as systems do when memory runs out, tells nothing of its last size.
    size = sizes[len(told)]
    if done.returncode < 0:
        yield _Attempt(size, "memory")
    else:
        lines = done.stderr.strip().splitlines()
        yield _Attempt(size, lines[-1] if lines else f"exit code {done.returncode}")


def _work(order: Path) -> None:
    """The worker: try the sizes of an order, a line of JSON each, until one does not fit."""
    # Imported in the worker: the driver needs nothing of them.
    from fstune.arms.diagnostics import memory_gb
    from fstune.arms.trainer import ArmTrainer, InfeasibleError

    asked = json.loads(order.read_text())
    arms = []
    for text in asked["arms"]:
        settings = ArmSettings.model_validate_json(text)
        materials = gather(settings, Path(asked["cache"]))
        longest = np.argsort(-materials.train.prompt_lengths, kind="stable").tolist()
        arms.append((materials.arm(settings, 0), materials, longest))
    device = torch.device(arm_device(None if asked["gpu"] else 0).kind)
    if asked["memory_gb"] is not None:
        _limit(device, asked["memory_gb"])
    for size in asked["sizes"]:
        outcome = "fits"
        try:
            for arm, materials, longest in arms:
                run = ArmTrainer(arm, materials, device, asked["checkpoint_layers"])
                run.try_out(longest[:size])
                del run
        except InfeasibleError:
            outcome = "memory"
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            outcome = "memory"
        attempt = _Attempt(size, outcome, memory_gb(device))
        print(json.dumps(asdict(attempt)), flush=True)  # noqa: T201  # what the driver reads
        if outcome == "memory":
            return


def _limit(device: torch.device, memory_gb: float) -> None:
    """Let this process have no more than so many GB."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gb * 1e9 / total))
        return
    try:
        import resource
    except ImportError:
        raise InputError("a memory limit on a CPU needs a Unix system") from None
    size = int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
