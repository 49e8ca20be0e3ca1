"""Entries of result.json that are mappings of their own (trainer/reporting/result.py is the whole)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# A metric that its convention leaves undefined on these cases is null or NaN in the file, NaN here.
Value = Annotated[float, BeforeValidator(lambda v: float("nan") if v is None else v)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, protected_namespaces=())


class Init(Part):
    kind: Literal["pretrained", "scratch", "file"]
    path: str | None = None
    sha256: str | None = None


class Leak(Part):
    checked: bool
    shared: int = 0
    ids: tuple[str, ...] = ()
    note: str = ""
    in_training: int = 0
    in_choosing: int = 0
    images: int = 0
    images_in_training: int = 0
    images_in_choosing: int = 0
    texts: int = 0
    texts_compared: int = 0

    @property
    def tested_on(self) -> int:
        """How many test patients, or test samples by their images, were learned from."""
        return self.shared + self.in_training + self.images + self.images_in_training


class Counts(Part):
    train: int
    val: int
    test: int
    test_patients: int


class Measured(Part):
    """A metric over a result's seeds; `k` is the number of right cases a seed, where the metric is a count."""

    convention: str
    higher_is_better: bool
    ideal: float | None = None
    """The value that is best, where neither the highest nor the lowest is."""
    value: Value
    per_seed: tuple[Value, ...]
    spread: float | None
    interval: tuple[Value, Value] | None
    interval_by: str | None = None
    """bootstrap-se, an exact bound's name, degenerate, none; bootstrap or None in results of earlier versions."""
    constant: tuple[bool, ...] | None = None
    """For each seed whether all test cases got one answer."""
    level: float = Field(0.95, gt=0, lt=1)
    draws: int = Field(1000, ge=1, le=100_000)
    bootstrap_seed: int = Field(0, ge=0)
    n: int
    patients: int | None = None
    k: tuple[int, ...] | None = None

    @property
    def never_left_one_answer(self) -> bool:
        """In every seed: such a value says what the cases are, and is neither ranked nor best."""
        return bool(self.constant) and all(self.constant or ())

    @property
    def goodness(self) -> float:
        """More is better, whichever way the metric goes."""
        if self.ideal is not None:
            return -abs(self.value - self.ideal)
        return self.value if self.higher_is_better else -self.value


class Hashes(Part):
    data: str
    config: str | None = None
    checkpoint: str | None = None
    code: str | None = None
    task: str | None = None


class Reference(Part):
    """A published number, and the data that it was measured on."""

    system: str
    metric: str
    value: float
    data: str


class Words(Part):
    """Which values of a label say yes (the event, the positive class, the finding), and what else counted as an answer."""

    yes: tuple[str, ...]
    uncertain: str | None = None
    blank: str | None = None


class Chosen(Part):
    """What a seed's weights were chosen among on the validation split: points of a grid, evaluations of each."""

    looks: int = 1
    grid: tuple[dict[str, object], ...] = ()

    @property
    def points(self) -> int:
        return max(len(self.grid), 1)


class Candidates(Part):
    """Of retrieval: how many there are to choose among, and by metric what a blind choice would find."""

    images: int
    reports: int
    chance: dict[str, float] = {}


class Answers(Part):
    words: dict[str, Words] = {}


class External(Part):
    """Of a result on other data than the run's: what they are called, and the predictions of the result that it stands beside."""

    name: str
    split: str = ""
    predictions_sha256: tuple[str, ...]
    own: bool = False
    """They are the run's own test cases."""


class Subgroup(Part):
    """The cases of one value of a label; without a value where they are too few, or the metric has none."""

    n: int
    patients: int
    value: float | None
    interval: tuple[Value, Value] | None
    too_few: str = ""


class Subgroups(Part):
    """The primary metric within the values of one label."""

    groups: dict[str, Subgroup]
    unknown: int
    worst: str | None
    best: str | None
    gap: float | None
    gap_interval: tuple[Value, Value] | None
    interval_by: str | None = None
    """None in results of earlier versions, whose intervals were percentiles."""
    gap_by: str | None = None
    """What gave the gap's interval; None in results of earlier versions, which took no account of the picking of worst and best."""


Interval = tuple[Value, Value]


class Read(Part):
    auc: float | None
    interval: Interval | None


class Robustness(Part):
    index: float
    interval: Interval | None
    chance: float | None
    k: int


class Held(Part):
    """The primary metric of a probe by folds of patients and by folds of sites."""

    random: float | None
    by_site: float | None
    difference: float | None
    interval: Interval | None
    folds: int | None = None
    without_value: dict[str, tuple[int, ...]] = {}
    """Folds that are in neither mean, by the kind of folds; not told in results of earlier versions."""

    def of_folds(self, by: str) -> str:
        """How many folds a mean is of, where some have no value."""
        n = len(self.without_value.get(by, ()))
        return f" ({self.folds - n} of {self.folds} folds)" if n and self.folds else ""


class Sites(Part):
    """What the features say of the site that a case comes from (trainer/downstream/sites)."""

    label: str
    not_judged: str = ""
    read: Read | None = None
    read_from_answer: float | None = None
    robustness: Robustness | None = None
    score: Held | None = None
