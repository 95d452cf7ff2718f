"""Where each record of a search lies. They are read and written by `folder` alone.

<runs>/searches/<name>/spec.json               the resolved spec
<runs>/searches/<name>/spec.yaml               the user's text
<runs>/searches/<name>/environment.json        versions, device, code; environment-002.json and
so on where it went on with others
<runs>/searches/<name>/rules                   the verdict rules that it began with
<runs>/searches/<name>/guesses.json            what chance and trivial strategies score;
guesses-test.json on the confirmation's examples
<runs>/searches/<name>/identity                tells it from every other search
<runs>/searches/<name>/lock                    held while it runs
<runs>/searches/<name>/report.json, .html, .csv
<runs>/searches/<name>/trials/0003/candidate.json
<runs>/searches/<name>/trials/0003/rung-0.json
<runs>/searches/<name>/trials/0003/end.json
<runs>/searches/<name>/trials/0003/look-1.json     a confirmation's first look; then look-2.json
<runs>/searches/<name>/trials/0003/confirmation.json
<runs>/searches/<name>/trials/0003/model/      weights of a confirmed gain
<runs>/searches/<name>/finalists.json          which trials are confirmed
<runs>/searches/<name>/trials/0003/progress.json   where it is right now; not part of the truth
<runs>/searches/<name>/mlflow.txt              the server it is sent to, if not the local store
<runs>/searches/<name>/unsent.txt              why MLflow lacks something, while it does
<runs>/searches/<name>/tune/                   Ray Tune's own files
<runs>/searches/<name>/log.txt                 what Ray, MLflow and Optuna had to say
"""

from collections.abc import Sequence
from pathlib import Path

from fstune.specs.settings import EvaluatedSplit


def search_names(runs: Path) -> Sequence[str]:
    """The searches that a folder of runs holds."""
    return sorted(path.parent.name for path in runs.glob("searches/*/spec.json"))


class SearchPaths:
    """The paths below a search's folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.spec = root / "spec.json"
        self.user_spec = root / "spec.yaml"
        self.identity = root / "identity"
        self.rules = root / "rules"
        self.finalists = root / "finalists.json"
        self.tracked_at = root / "mlflow.txt"
        self.unsent = root / "unsent.txt"
        self.log = root / "log.txt"
        self.tune = root / "tune"
        self.lock = root / "lock"

    def guesses(self, split: EvaluatedSplit) -> Path:
        return self._root / ("guesses.json" if split == "validation" else f"guesses-{split}.json")

    def environment(self, index: int) -> Path:
        return self._root / (f"environment-{index + 1:03d}.json" if index else "environment.json")

    @property
    def environments(self) -> list[Path]:
        return sorted(self._root.glob("environment*.json"), key=lambda path: path.stem)

    def report(self, form: str) -> Path:
        return self._root / f"report.{form}"

    def candidate(self, number: int) -> Path:
        return self._trial(number) / "candidate.json"

    def rung(self, number: int, rung: int) -> Path:
        return self._trial(number) / f"rung-{rung}.json"

    def end(self, number: int) -> Path:
        return self._trial(number) / "end.json"

    def look(self, number: int, look: int) -> Path:
        return self._trial(number) / f"look-{look}.json"

    def confirmation(self, number: int) -> Path:
        return self._trial(number) / "confirmation.json"

    def model(self, number: int) -> Path:
        return self._trial(number) / "model"

    def progress(self, number: int) -> Path:
        return self._trial(number) / "progress.json"

    @property
    def numbers(self) -> list[int]:
        """Of the trials, rising."""
        return sorted(int(folder.name) for folder in self._root.glob("trials/[0-9]*"))

    @property
    def confirmations(self) -> list[Path]:
        return list(self._root.glob("trials/*/confirmation.json"))

    def _trial(self, number: int) -> Path:
        return self._root / "trials" / f"{number:04d}"
