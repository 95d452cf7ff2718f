"""The page of `fstune plan`: what deciding a question takes, before it is paid for."""

from collections.abc import Iterator

from fstune.report.phrases import counted, describe_candidate, duration, percent
from fstune.results.planning import RANGE, WANTED_POWER, Outlook
from fstune.search.pilot import Pilot
from fstune.specs.sections import SearchSpec

_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sizes of the test split that are compared, as shares of the spec's."""

_HIGHEST = 25.0
"""The largest effect that is looked at, in effects that matter."""


class Plan:
    """What confirming a candidate of a search takes, by what a pilot says."""

    def __init__(self, spec: SearchSpec, pilot: Pilot) -> None:
        self._spec = spec
        self._pilot = pilot
        self._metric = spec.metric()
        self._worth = spec.objective.worth_deciding
        self._known = Outlook.of(spec, pilot.pairs)
        self._design = self._known.design
        self._variation = self._known.variation
        self._price = self._known.price
        size = spec.task.test_size or self._variation.num_examples
        self._size = size
        self._sizes = [max(round(size * share), 2) for share in _SHARES]

    def lines(self) -> Iterator[str]:
        """The page."""
        yield from self._heading()
        yield ""
        yield (
            f"{'examples':<10}{'found':<8}{'seeds':<8}{'steps':<9}{'time':<13}"
            f"{'excluded':<10}{'seeds':<8}{'found in ' + percent(WANTED_POWER)}"
        )
        for examples in self._sizes:
            yield self._row(examples)
        yield ""
        yield from self._advice()

    def _heading(self) -> Iterator[str]:
        variation, price = self._variation, self._price
        worth = f"{self._worth:g} {self._metric.name}"
        yield (
            f"{self._spec.name}: what it takes to decide whether a candidate is worth {worth}, by "
            f"looks at {', '.join(map(str, self._design.looks))} new seeds"
        )
        yield (
            f"pilot: {describe_candidate(self._pilot.candidate)}, "
            f"{counted(variation.num_seeds, 'seed')} × {variation.num_examples} "
            f"{self._pilot.split} examples after {price.steps} steps, gains {variation.mean:+.4f}"
        )
        low, high = variation.range_of_seeds
        yield (
            f"seeds differ by {variation.seeds:.4g} ({low:.4g} to {high:.4g} with "
            f"{percent(RANGE)}, by so few seeds), examples by {variation.examples:.4g}, and what "
            f"belongs to neither by {variation.rest:.4g}"
        )
        evaluation = duration(price.example_s * self._size)
        yield (
            f"an arm takes {duration(price.train_s)} to train here and {evaluation} to evaluate on "
            f"{self._size} examples, {price.at_once} at once"
        )
        yield (
            f"left: of candidates worth {self._worth:g}, the share that is found, its seeds, the "
            "optimiser steps and the time; right: of those worth nothing, the share in which "
            f"{self._worth:g} is excluded, and its seeds; the smallest gain found in "
            f"{percent(WANTED_POWER)}"
        )

    def _row(self, examples: int) -> str:
        gain, null = (self._known.prospect(examples, effect) for effect in (self._worth, 0.0))
        steps = round(2 * gain.seeds * self._price.steps)
        time = duration(3600 * self._price.hours(gain.seeds, examples))
        mark = "*" if examples == self._size else ""
        return (
            f"{f'{examples}{mark}':<10}{f'{100 * gain.gain:.0f} %':<8}{gain.seeds:<8.1f}"
            f"{steps:<9,}{time:<13}{f'{100 * null.excluded:.0f} %':<10}{null.seeds:<8.1f}"
            f"{self._smallest(examples, self._known)}"
        )

    def _smallest(self, examples: int, known: Outlook) -> str:
        most = _HIGHEST * self._worth
        found = known.smallest_found(examples, most)
        return f"over {most:g}" if found is None else f"{found:.3g}"

    def _advice(self) -> Iterator[str]:
        yield f"* the size of the spec's test split ({self._spec.name})"
        enough = self._variation.examples_that_suffice(self._design.looks[-1])
        if enough < self._sizes[-1]:
            yield (
                f"More than {enough} examples hardly help: they narrow the interval of "
                f"{self._design.looks[-1]} seeds by a tenth at the most, since seeds differ."
            )
        able = [
            (self._price.hours(found.seeds, examples), examples, found)
            for examples in self._sizes
            if (found := self._known.prospect(examples, self._worth)).gain >= WANTED_POWER
        ]
        if able:
            hours, examples, found = min(able, key=lambda each: each[0])
            yield (
                f"Cheapest for {self._worth:g}: {examples} examples, {found.seeds:.0f} seeds of at "
                f"most {found.most} on average, {duration(3600 * hours)} here."
            )
        else:
            yield (
                f"{self._worth:g} is found in {percent(WANTED_POWER)} with none of these: ask for "
                "a larger gain (`objective.worth`), or let the seeds differ less (longer training, "
                "`evaluation.weights: mean`, `evaluation.cooldown`)."
            )
        _, high = self._variation.range_of_seeds
        wide = self._known.with_seeds_differing(high)
        yield (
            f"If seeds differ by {high:.3g}, as they may, {self._smallest(self._size, wide)} is "
            f"the smallest gain found on {self._size} examples."
        )
