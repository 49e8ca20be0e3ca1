"""What a result owes to the hospital: the robustness index against its definition and another program, planted sites, held-out sites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from tests.trainer.downstream.cohorts import make
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import planted
from tests.trainer.reporting.runs import write
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.table import DEFAULTS
from trainer.downstream.sites.analysis import Asked, _interval, cramers_v, site_report
from trainer.downstream.sites.folds import DECAY, answered, by_patient, by_site
from trainer.downstream.sites.robustness import robustness
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError
from trainer.reporting import words
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.result_parts import Held
from trainer.reporting.sites import tables


def features(
    seed: int, tied: float, of_class: float, of_site: float, patients: int = 90
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_ND, class, site and patient of cases: classes and sites go together with probability `tied`, and each moves one direction."""
    rng = np.random.default_rng(seed)
    who_N = np.concatenate([np.arange(patients), rng.integers(0, patients, patients // 2)])
    class_P = rng.integers(0, 2, patients)
    site_P = np.where(rng.random(patients) < tied, class_P, rng.integers(0, 2, patients))
    x_ND = rng.normal(size=(len(who_N), 16))
    x_ND[:, 0] += of_class * class_P[who_N]
    x_ND[:, 1] += of_site * site_P[who_N]
    return x_ND, class_P[who_N], site_P[who_N], who_N


# -------------------------------------------------------------------------------------------------------- robustness index


def by_definition(
    x_ND: np.ndarray, class_N: np.ndarray, site_N: np.ndarray, who_N: np.ndarray, k: int
) -> tuple[float, float]:
    """The index at k and the balanced accuracy of the majority of k, case by case, by distances of vectors of length 1."""
    z = [x / np.sqrt((x * x).sum()) for x in x_ND]
    so = os = 0
    right: dict[int, list[bool]] = {}
    for i in range(len(z)):
        far = sorted((float(((z[i] - z[j]) ** 2).sum()), j) for j in range(len(z)) if who_N[j] != who_N[i])
        near = [j for _, j in far[:k]]
        so += sum(class_N[j] == class_N[i] and site_N[j] != site_N[i] for j in near)
        os += sum(class_N[j] != class_N[i] and site_N[j] == site_N[i] for j in near)
        votes = [sum(class_N[j] == c for j in near) for c in (0, 1)]
        right.setdefault(int(class_N[i]), []).append(int(votes[1] > votes[0]) == class_N[i])
    return so / (so + os), float(np.mean([np.mean(r) for r in right.values()]))


@pytest.mark.parametrize("seed", range(3))
def test_the_index_is_that_of_its_definition(seed: int) -> None:
    cases = features(seed, tied=0.4, of_class=1.5, of_site=1.0, patients=30)
    found = robustness(*cases)
    assert found is not None
    most = len(cases[0]) - np.bincount(cases[3]).max()
    each = {k: by_definition(*cases, k) for k in (1, 3, 5, 7, 9, 11, 21, 31) if k <= most}
    best = max(each, key=lambda k: (each[k][1], -k))
    assert found.k == best
    assert found.index == pytest.approx(each[best][0], abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(each[best][1], abs=1e-12)


@pytest.mark.parametrize(
    ("seed", "tied", "of_class", "of_site"), [(0, 0, 2, 0), (1, 0.5, 1, 2), (2, 0.9, 0.3, 4), (3, 0, 0, 3)]
)
def test_the_index_is_another_programs(seed: int, tied: float, of_class: float, of_site: float) -> None:
    """croma computes it with neighbours of its own; it takes another class where votes are equal, so k may be the next one."""
    from croma import RI

    x_ND, class_N, site_N, who_N = features(seed, tied, of_class, of_site)
    found = robustness(x_ND, class_N, site_N, who_N)
    assert found is not None
    table = {
        "sample_id": [str(i) for i in range(len(who_N))], "image_path": "none", "label": [f"class {c}" for c in class_N],
        "group_id": [f"patient {p}" for p in who_N], "site": [f"site {s}" for s in site_N],
    }  # fmt: skip
    manifest = pd.DataFrame(table)
    curve = RI.compute_curve(x_ND, manifest, confounder_column="site", k_values=[found.k])
    assert found.index == pytest.approx(curve[found.k], abs=1e-9)
    tried = [1, 3, 5, 7, 9, *range(11, len(who_N) - int(np.bincount(who_N).max()) + 1, 10)]
    theirs = RI.compute(x_ND, manifest, confounder_column="site", k_candidates=tried)
    assert found.index == pytest.approx(theirs.value, abs=0.01)


def test_chance_is_what_random_neighbours_give() -> None:
    """Four of five cases are of one class: more neighbours share it than a site, by number alone."""
    rng = np.random.default_rng(4)
    class_N, site_N = (rng.random(500) < 0.2).astype(int), rng.integers(0, 2, 500)
    found = robustness(rng.normal(size=(500, 16)), class_N, site_N, np.arange(500))
    assert found is not None
    share = class_N.mean()
    assert found.chance == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)
    assert found.index == pytest.approx(found.chance, abs=0.03)


def test_resamples_of_the_index_count_both_ends_of_a_pair() -> None:
    x_ND, class_N, site_N, who_N = features(1, 0.3, 1, 1, patients=20)
    found = robustness(x_ND, class_N, site_N, who_N)
    assert found is not None
    count_RP = np.random.default_rng(0).integers(0, 3, (3, who_N.max() + 1))
    count_RP[0] = 1
    for count_P, index in zip(count_RP, found.resampled(who_N, count_RP), strict=True):
        so = os = 0
        for i, near in enumerate(found.near_NK):
            for j in near:
                times = count_P[who_N[i]] * count_P[who_N[j]]
                so += times * (class_N[j] == class_N[i] and site_N[j] != site_N[i])
                os += times * (class_N[j] != class_N[i] and site_N[j] == site_N[i])
        assert index == pytest.approx(so / (so + os))
    assert found.resampled(who_N, count_RP)[0] == pytest.approx(found.index)


def test_one_patient_has_no_neighbours() -> None:
    x_ND, class_N, site_N, who_N = features(0, 0, 1, 1, patients=10)
    assert robustness(x_ND, class_N, site_N, np.zeros_like(who_N)) is None


# ----------------------------------------------------------------------------------------------------------- whole reports


def report(
    cases: tuple[np.ndarray, ...], names: tuple[str, ...] = ("north", "south"), alone: Any = (), metric: str = "auc"
) -> dict[str, Any]:
    x_ND, class_N, site_N, who_N = cases
    p = make("binary", class_N, np.full(len(class_N), 0.5))
    p = type(p)("binary", p.keys_N, who_N.astype(str), p.target, p.score)
    words_N = np.array([names[s] for s in site_N], dtype=object)
    found = site_report("site", Asked(x_ND, p, words_N, metric, 200, 0, 0.95), dict(alone))
    # What simulation says of such intervals is test_simulated.py's.
    found["warnings"] = [w for w in found["warnings"] if "simulated" not in w]
    return json.loads(json.dumps(found, allow_nan=False))


def test_a_score_that_leans_on_the_site_is_said_to() -> None:
    found = report(features(0, tied=0.9, of_class=0.3, of_site=5))
    assert found["read"]["auc"] > 0.95
    assert found["robustness"]["index"] < found["robustness"]["chance"]
    score = found["score"]
    assert score["random"] > 0.8
    assert score["interval"][1] < 0
    (said,) = found["warnings"]
    assert "leans on the site" in said
    assert f"{score['by_site']:.3f} at sites that it was not fitted on" in said
    assert "robustness index" in found["lines"][2]


@pytest.mark.parametrize(("folds", "times"), [(5, 1.5), (2, 3**0.5), (0, 1)])
def test_intervals_of_means_over_folds_are_wider(folds: int, times: float) -> None:
    """Nadeau and Bengio: the variance of J independent folds, times (1 / J + 1 / (J - 1)) / (1 / J)."""
    x_ND, class_N, _, who_N = features(3, 0, 1, 1)
    p = make("binary", class_N, np.full(len(class_N), 0.5))
    asked = Asked(x_ND, type(p)("binary", p.keys_N, who_N.astype(str), p.target, p.score), who_N, "auc", 9, 0, 0.95)
    value_R = np.random.default_rng(0).normal(size=50)
    low, high = _interval(0.2, value_R, asked, "real", folds) or (0, 0)
    patients = len(np.unique(who_N))
    error = value_R.std(ddof=1) * np.sqrt(patients / (patients - 1))
    assert high - low == pytest.approx(2 * times * t.ppf(0.975, patients - 1) * error)


@pytest.mark.parametrize("of_site", [0, 5])
def test_a_score_that_does_not_is_left_alone(of_site: float) -> None:
    """Though the site is there to be read: it says nothing of the class."""
    found = report(features(1, tied=0, of_class=3, of_site=of_site))
    assert not found["warnings"]
    assert (found["read"]["auc"] > 0.95) == bool(of_site)
    assert set(found["score"]["each"]) == {"north", "south"}


def test_a_site_that_is_the_answer_is_marked() -> None:
    found = report(features(2, tied=1, of_class=1, of_site=3))
    assert found["association"] == pytest.approx(1)
    assert found["robustness"] is None
    assert found["score"]["by_site"] is None
    assert "say the same" in found["warnings"][0]


def test_sites_that_cannot_be_compared_are_named() -> None:
    x_ND, class_N, site_N, who_N = features(3, tied=0, of_class=1, of_site=1)
    few_N = np.where(who_N < 3, 2, np.where(who_N == 3, 3, 0))
    found = report((x_ND, class_N, few_N, who_N), ("north", "south", "east", ""))
    assert found["not_judged"].startswith("the test cases are of north alone")
    assert found["few"] == {"east": 3}
    assert found["unknown"] == int((who_N == 3).sum())
    one = report((x_ND, class_N, site_N, who_N), alone={"north": "test"})
    assert "1 sites lie in one split alone (north in test)" in one["warnings"][0]


def test_a_small_site_stays_among_many_cases() -> None:
    """Six cases of thousands: each is looked at, and of the others as many as leave 2,000 in all."""
    x_ND, class_N, site_N, who_N = features(6, tied=0, of_class=1, of_site=1, patients=6000)
    small = np.linspace(7, 5900, 6).astype(int)
    site_N, class_N[small] = np.isin(np.arange(len(who_N)), small).astype(int), [0, 1] * 3
    found = report((x_ND, class_N, site_N, np.arange(len(who_N))), metric="accuracy")
    assert found["cases"] == 2000
    assert found["not_judged"] == ""
    assert found["read"]["auc"] is not None
    assert set(found["score"]["each"]) == {"north", "south"}


def test_no_score_is_said_of_a_part_of_the_sites() -> None:
    """South has one class: no probe learns from it, so north is never tested at a site held out."""
    x_ND, class_N, site_N, who_N = features(7, tied=0, of_class=2, of_site=1)
    found = report((x_ND, np.where(site_N == 1, 0, class_N), site_N, who_N), metric="accuracy")
    assert found["score"]["random"] > 0.5
    assert found["score"]["by_site"] is None
    assert found["score"]["difference"] is None
    assert not found["warnings"]


def test_folds_without_a_value_are_said() -> None:
    """East has one class: its area does not exist, and both means say of how many folds they are."""
    x_ND, class_N, site_N, who_N = features(7, tied=0, of_class=2, of_site=1, patients=90)
    site_N = who_N % 3
    found = report((x_ND, np.where(site_N == 2, 0, class_N), site_N, who_N), names=("north", "south", "east"))
    score = found["score"]
    assert [n for n, value in score["each"].items() if value is None] == ["east"]
    assert score["by_site"] == pytest.approx(fmean(v for v in score["each"].values() if v is not None))
    assert (score["folds"], score["without_value"]) == (3, {"random": [], "by_site": [2]})
    assert "at sites held out: a mean of 2 of 3 folds; east has no value" in found["lines"][-1]
    held = Held.model_validate_json(json.dumps({k: score[k] for k in Held.model_fields}))
    assert (held.of_folds("random"), held.of_folds("by_site")) == ("", " (2 of 3 folds)")


def test_the_probe_is_scikit_learns() -> None:
    """Fitted on the other folds' patients, by the same penalty."""
    from sklearn.linear_model import LogisticRegression

    x_ND, _, site_N, who_N = features(5, tied=0.2, of_class=1, of_site=1)
    p = make("binary", site_N, np.full(len(site_N), 0.5))
    p = type(p)("binary", p.keys_N, who_N.astype(str), p.target, p.score)
    fold_N = by_patient(p, 5, site_N)
    assert all(len(set(fold_N[who_N == w])) == 1 for w in set(who_N.tolist()))
    said, has_N = answered(x_ND, p, fold_N)
    assert has_N.all()
    for fold in range(5):
        learned_N = fold_N != fold
        mean, std = x_ND[learned_N].mean(0), x_ND[learned_N].std(0)
        fit = LogisticRegression(C=1 / (learned_N.sum() * DECAY), tol=1e-10, max_iter=10_000)
        fit.fit((x_ND[learned_N] - mean) / std, site_N[learned_N])
        theirs = fit.predict_proba((x_ND[~learned_N] - mean) / std)[:, 1]
        np.testing.assert_allclose(said.score[~learned_N], theirs, atol=1e-5)


def test_many_sites_share_folds() -> None:
    site_N = np.repeat(np.arange(12), 7)
    fold_N = by_site(site_N)
    assert len(set(fold_N)) == 5
    assert all(len(set(fold_N[site_N == s])) == 1 for s in range(12))


def test_cramers_v_by_hand() -> None:
    """Of a 2 x 2 table it is the size of phi."""
    a, b = np.array([0] * 30 + [1] * 20), np.array([0] * 20 + [1] * 10 + [0] * 5 + [1] * 15)
    phi = (20 * 15 - 10 * 5) / np.sqrt(30 * 20 * 25 * 25)
    assert cramers_v(a, b) == pytest.approx(phi)


# ------------------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"hold_out": "A"}, "hold_out: of which label is it a value"),
        ({"site": "x"}, "site: x is the answer that is asked for"),
        ({"site": "s", "hold_out": "A", "mode": "zeroshot"}, "hold_out: mode zeroshot learns from no site"),
    ],
)
def test_keys_that_do_not_go_together(words: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_task({"name": "t", "kind": "binary", "label": "x", **words})


@pytest.fixture(scope="module")
def two_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each split two patients of one hospital, then two of the other, whose classes alternate; a severity is one patient's."""
    seen: dict[str, dict[object, int]] = {}

    def labels(i: int, split: str, given: dict[str, Any]) -> dict[str, Any]:
        people = seen.setdefault(split, {})
        return {**given, "site": "AB"[people.setdefault(given["severity"], len(people)) // 2 % 2], "grade": 1.0}

    return planted(tmp_path_factory.mktemp("sites") / "ab", labels, patients=80)


@pytest.mark.parametrize("primary", ["c_index", "integrated_brier"])
def test_trainings_with_other_horizons_are_compared_at_one_trainings(tmp_path: Path, primary: str) -> None:
    """Deciles of the times of fewer training cases: other ones, or fewer."""
    write(tmp_path / "all", "survival", 2.0, primary=primary)
    folder = write(tmp_path / "without", "survival", 0.5, primary=primary, hold_out="A")
    for file in sorted((folder / "predictions").iterdir()):
        p = Predictions.load(file)
        assert p.survival_NH is not None
        replace(p, horizons_H=np.array([4.0, 9.0]), survival_NH=p.survival_NH[:, :2]).save(file)
    made = [Predictions.load(f) for f in sorted((folder / "predictions").iterdir())]
    result = json.loads((folder / "result.json").read_bytes())
    result["metrics"] = {n: entry(made, n, draws=100) for n in DEFAULTS["survival"]}
    (folder / "result.json").write_text(json.dumps(result))
    groups = group(collect([tmp_path]).results)
    plain = next(g for g in groups if g.held_out is None)
    (beside,) = tables(plain, plain.amounts[0], groups)
    assert beside.rows[0][1] == "A"
    assert (beside.rows[0][4] == words.NONE) == (primary == "integrated_brier")


@pytest.mark.slow
def test_a_run_says_so_and_a_report_compares(
    two_hospitals: Path, finetune: Finetune, forks: Any, tmp_path: Path
) -> None:
    """With the site's cases and without; what does not go is refused before anything is trained."""
    words = ("--task", "demo_subtype", "--method", "abmil", f"data.path={two_hospitals}", "site=site")
    ended = finetune(tmp_path / "runs/all", *words)
    assert ended.codes == [0], ended.text
    whole = json.loads((tmp_path / "runs/all/result.json").read_bytes())
    assert set(whole["sites"]["sites"]) == {"A", "B"}
    assert whole["sites"]["lines"][1].strip() in ended.text
    ended = finetune(tmp_path / "runs/without", *words, "hold_out=A")
    assert ended.codes == [0], ended.text
    without = json.loads((tmp_path / "runs/without/result.json").read_bytes())
    assert without["hold_out"] == "A"
    assert without["n"]["test"] == whole["sites"]["sites"]["A"]["cases"]
    assert without["n"]["train"] < whole["n"]["train"]
    assert without["n"]["val"] < whole["n"]["val"]
    groups = group(collect([tmp_path / "runs"]).results)
    plain, held = sorted(groups, key=lambda g: g.name)
    assert held.name == "demo_subtype at A, held out"
    said, beside = tables(plain, plain.amounts[0], groups)
    assert said.rows[0][1].startswith(f"{whole['sites']['read']['auc']:.3f} (")
    assert beside.rows[0][1] == "A"
    assert beside.rows[0][4] == f"{without['metrics']['auc']['value']:.3f}"
    assert not list(tables(held, held.amounts[0], groups))

    def refused(*more: str) -> str:
        return finetune(tmp_path / "no", *words, *more).text

    assert "hold_out: no sample of" in refused("hold_out=C")
    assert "site: " in (text := refused("site=ward"))
    assert "has no label 'ward'" in text
    assert "one hospital alone has nothing" in refused("site=grade")
    assert not (tmp_path / "no" / "seed-0").exists()
