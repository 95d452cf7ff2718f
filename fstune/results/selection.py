"""Many candidates were tried: what of their results stands when that is taken into account.

Whether a candidate's difference survives control of the false discovery rate among all that were
compared, and what the winner's delta is on examples that did not pick it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fstune.arms.arm import Outcome, Pair
from fstune.arms.store import ArmStore
from fstune.results.deltas import BOOTSTRAP_SEED
from fstune.results.outcomes import stored_pairs
from fstune.results.records import TrialRecord, own_trials
from tasks.metrics import Metric

FALSE_DISCOVERY_RATE = 0.05


SPLITS = 100
"""Ways in which examples are divided between picking and measuring."""


def adjusted(p_values: Mapping[int, float]) -> dict[int, float]:
    """Adjusted p-values (q) of Benjamini and Hochberg (JRSS B 57(1), 1995).

    A set of all with q <= 0.05 has at most 5 % false discoveries on average. Candidates are
    compared with the same baselines, so that their errors go together: under such positive
    dependence the procedure holds (Benjamini and Yekutieli, Annals of Statistics 29(4), 2001).

    Args:
        p_values: of each trial.
    """
    from scipy.stats import false_discovery_control  # takes a second to import

    return dict(
        zip(p_values, false_discovery_control(list(p_values.values())).tolist(), strict=True)
    )


def false_discovery_adjusted(trials: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """Adjusted p-value of each trial at the last rung that it reached.

    Trials that are equal in effect are one candidate: they count once and share its value.
    """
    reached = [trial for trial in trials if trial.rungs]
    candidate = {t.number: t.number if t.equals is None else t.equals for t in reached}
    found = adjusted({candidate[t.number]: t.rungs[-1].deltas[metric].p_value for t in reached})
    return {number: found[same] for number, same in candidate.items()}


@dataclass(frozen=True)
class CorrectedWinner:
    """The winner's delta on examples that did not pick it."""

    mean: float
    """Over all ways of dividing the examples."""
    naive: float
    """On the examples that picked it."""
    picked: dict[int, float]
    """How often each trial won."""


def corrected_winner(
    trials: Sequence[TrialRecord], metric: Metric, store: ArmStore
) -> CorrectedWinner | None:
    """Picks the best trial at the furthest rung on half of the examples, measures it on the rest.

    The halves change roles, and are drawn `SPLITS` times. All seeds take part on both sides, so
    that only the luck of the examples is corrected for; `confirm` covers new seeds and examples.

    Returns:
        None with fewer than two candidates there, or where outcomes are not stored.
    """
    measured = _measured_at_the_furthest(trials, store)
    if len(measured) < 2:
        return None
    numbers = sorted(measured)
    num_examples = len(next(iter(measured[numbers[0]][0].variant.measures.values())))
    rng = np.random.default_rng(BOOTSTRAP_SEED + 2)
    sign = 1.0 if metric.higher_is_better else -1.0
    held_out, at_pick, wins = [], [], Counter[int]()
    for _ in range(SPLITS):
        halves = np.array_split(rng.permutation(num_examples), 2)
        gain_HK = np.array(
            [[sign * _delta(measured[n], metric, half) for n in numbers] for half in halves]
        )
        for pick, measure in ((0, 1), (1, 0)):
            best = int(gain_HK[pick].argmax())
            wins[numbers[best]] += 1
            at_pick.append(sign * gain_HK[pick, best])
            held_out.append(sign * gain_HK[measure, best])
    total = wins.total()
    return CorrectedWinner(
        mean=float(np.mean(held_out)),
        naive=float(np.mean(at_pick)),
        picked={number: count / total for number, count in wins.most_common()},
    )


def _measured_at_the_furthest(
    trials: Sequence[TrialRecord], store: ArmStore
) -> dict[int, list[Pair]]:
    """The stored pairs of every trial at the furthest rung, by its number."""
    own = own_trials(trials)
    furthest = max((len(trial.rungs) for trial in own), default=0)
    there = [trial for trial in own if furthest and len(trial.rungs) == furthest]
    return {trial.number: pairs for trial in there if (pairs := _last_pairs(trial, store))}


def _last_pairs(trial: TrialRecord, store: ArmStore) -> list[Pair]:
    """The stored pairs of a trial's last rung; none if one is missing."""
    rung = trial.rungs[-1]
    return stored_pairs(store, rung.arms, rung.steps)


def _delta(pairs: Sequence[Pair], metric: Metric, half: NDArray[np.int64]) -> float:
    def score(outcome: Outcome) -> float:
        return metric.score({name: outcome.measures[name][half] for name in metric.needs})

    return float(np.mean([score(pair.variant) - score(pair.baseline) for pair in pairs]))
