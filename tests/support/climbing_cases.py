"""A search whose climbs are carried out at once, without training."""

import random
from pathlib import Path
from typing import Any

from arm_cases import SPEC, made, rung_record, spec
from ray.tune.search import Searcher

from fstune.results.records import EndRecord
from fstune.search.climber import Climber
from fstune.search.trainable import OBJECTIVE

PROMOTE = (
    SPEC.partition("rungs:")[0]
    + """\
rungs:
  - {steps: 2, seeds: 1}
  - {steps: 4, seeds: 1}
  - {steps: 6, seeds: 1}
space:
  future_seed.alpha: {uniform: [-4.0, 2.0]}
  future_seed.norm: {choice: [true, false]}
search: {trials: 20, reduction_factor: 2, scheduler: asha_promote, seed: 3}
"""
)


def worth(candidate: dict[str, Any], rung: int) -> float:
    """Best at alpha -1 with norm; what a rung tells is nearer the truth the higher it is."""
    miss = abs(float(candidate["future_seed.alpha"]) + 1.0)
    return -miss - (0.0 if candidate["future_seed.norm"] else 1.0) + 0.3 / (rung + 1)


class Climbing:
    """A search under `Climber` as Tune drives it, with objectives from a formula."""

    def __init__(self, folder: Path, text: str = PROMOTE) -> None:
        folder.mkdir(exist_ok=True)
        self.spec = spec(folder, text)
        self.records = made(folder, self.spec)
        self.climber = Climber(self.spec, self.records)
        self.asked = 0
        self.jobs: list[tuple[int, int]] = []
        self.running: dict[str, dict[str, Any]] = {}

    def ask(self) -> dict[str, Any] | str | None:
        name = f"t{self.asked}"
        self.asked += 1
        config = self.climber.suggest(name)
        if isinstance(config, dict):
            self.running[name] = config
            self.jobs.append((config["number"], config["rung"]))
        return config

    def train(self, name: str) -> None:
        """What a worker writes of a climb."""
        config = self.running[name]
        number, rung = config["number"], config["rung"]
        objective = worth(config["candidate"], rung)
        self.records.write_rung(number, rung_record(rung, objective=objective))
        if rung == len(self.spec.rungs) - 1:
            self.records.write_end(number, EndRecord("completed", "reached the last rung"))

    def tell(self, name: str) -> None:
        self.train(name)
        rung = self.records.trial(self.running[name]["number"]).rungs[-1]
        del self.running[name]
        self.climber.on_trial_complete(name, {OBJECTIVE: rung.objective})

    def run(self, slots: int = 1, until: int = 10**6, seed: int = 0) -> None:
        """Go on with so many slots until the end, or until so many climbs have begun."""
        chance = random.Random(seed)
        while len(self.jobs) < until:
            while len(self.running) < slots:
                config = self.ask()
                if not isinstance(config, dict):
                    break
            if not self.running:
                assert config == Searcher.FINISHED
                return
            self.tell(chance.choice(sorted(self.running)))

    def killed(self) -> None:
        """A new driver; what ran is lost, records stay."""
        self.running.clear()
        self.climber = Climber(self.spec, self.records)

    def rungs(self) -> int:
        """How many were trained; a candidate that equals another has none of its own."""
        return sum(len(trial.rungs) for trial in self.records.trials() if trial.equals is None)

    def table(self) -> list[Any]:
        return [(t.candidate, [r.objective for r in t.rungs], t.end) for t in self.records.trials()]
