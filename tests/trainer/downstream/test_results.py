"""result.json: what stands in it, and that it is taken again only when everything that decided it is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from shards.format.terms import restate_terms
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import planted, relabelled
from trainer.downstream.code import code_hash
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import bootstrap
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.results import reusable
from trainer.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]


def words(pretrained: Pretrained, *more: str) -> list[str]:
    start = ["--task", "demo_subtype", "--method", "gimp", "--init", str(pretrained("gimp"))]
    return [*start, "seeds=[0, 1]", "bootstrap.draws=1000", *more]


@pytest.fixture(scope="module")
def measured(pretrained: Pretrained, finetune: Finetune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured") / "run"
    ended = finetune(out, *words(pretrained))
    assert ended.codes == [0], ended.text
    return out


def test_a_result_says_all_that_decided_it(measured: Path, pretrained: Pretrained) -> None:
    found = json.loads((measured / "result.json").read_bytes())
    seeds = [Predictions.load(measured / name) for name in found["predictions"]]
    assert len(seeds) == 2
    for name, m in found["metrics"].items():
        again = bootstrap(seeds, name, 1000, found_seed := 0, 0.95)
        assert (m["value"], m["n"], m["draws"]) == (pytest.approx(again.value), again.n, 1000)
        drawn = pytest.approx([again.low, again.high]) if METRICS[name].resampled else None
        assert m["interval"] == drawn, f"{name}: seeded with {found_seed}, it can be drawn again"
        assert m["spread"] == pytest.approx(np.std(m["per_seed"], ddof=1))
        assert m["convention"] == METRICS[name].convention
    right = found["metrics"]["accuracy"]
    assert [k / right["n"] for k in right["k"]] == pytest.approx(right["per_seed"])
    assert found["metrics"]["auc"]["k"] is None
    from trainer.state.finished import open_run

    assert found["hashes"]["checkpoint"] == open_run(pretrained("gimp")).sha256()
    assert found["hashes"]["code"] == code_hash("gimp")
    assert set(found["hashes"]) == {"config", "data", "checkpoint", "code"}
    steps = [json.loads(line) for p in measured.rglob("metrics.jsonl") for line in p.read_text().splitlines()]
    assert found["wall_s"] > sum(4 / r["samples_per_s"] for r in steps)


def test_the_same_command_shows_the_result_and_trains_nothing(
    measured: Path, pretrained: Pretrained, finetune: Finetune
) -> None:
    before = {p: p.stat().st_mtime_ns for p in measured.rglob("*") if p.suffix in (".npz", ".safetensors", ".jsonl")}
    content = (measured / "result.json").read_bytes()
    ended = finetune(measured, *words(pretrained))
    assert ended.codes == [0], ended.text
    assert "measured already, from the same data, weights, configuration and code" in ended.text
    assert f"tested once on {json.loads(content)['n']['test']} cases of 12 patients" in ended.text
    assert (measured / "result.json").read_bytes() == content
    assert {p: p.stat().st_mtime_ns for p in before} == before
    free = finetune(measured, *words(pretrained, "checkpoint.every=7", "log.every=3", "data.workers=2"))
    assert "measured already" in free.text, "how a run is logged and saved does not decide what comes out"


def test_terms_may_be_stated_once_a_result_stands(
    measured: Path, pretrained: Pretrained, finetune: Finetune, cohort: Path, tmp_path: Path
) -> None:
    """As an export asks for; they decide nothing of what is measured."""
    data, content = Path(shutil.copytree(cohort, tmp_path / "data")), (measured / "result.json").read_bytes()
    restate_terms(data, "internal", "no", "Ours, 2026")
    ended = finetune(measured, *words(pretrained, f"data.path={data}"))
    assert ended.codes == [0], ended.text
    assert "measured already, from the same data, weights, configuration and code" in ended.text
    assert (measured / "result.json").read_bytes() == content


def test_a_pre_training_run_that_was_moved_is_the_same(
    measured: Path, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(pretrained("gimp"), tmp_path / "elsewhere"))
    content = (measured / "result.json").read_bytes()
    swapped = [str(moved) if w == str(pretrained("gimp")) else w for w in words(pretrained)]
    ended = finetune(measured, *swapped)
    assert ended.codes == [0], ended.text
    assert "measured already, from the same data, weights, configuration and code" in ended.text
    assert (measured / "result.json").read_bytes() == content
    weights = load_file(moved / "weights.safetensors")
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1}, moved / "weights.safetensors")
    refused = finetune(measured, *swapped)
    assert refused.codes == [2], "the hash decides"
    assert "init.sha256: " in refused.text


@pytest.mark.parametrize("name", ["config", "data", "checkpoint", "code"])
def test_one_other_hash_and_it_is_not_taken_again(name: str, measured: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(measured, tmp_path / "run"))
    hashes = json.loads((out / "result.json").read_bytes())["hashes"]
    assert reusable(out, hashes) is not None
    with pytest.raises(UserError) as e:
        reusable(out, {**hashes, name: "other"})
    assert f"{name} {hashes[name]} -> other" in str(e.value)
    assert "give another out=FOLDER, or remove" in str(e.value)
    (out / "result.json").write_text('{"torn')
    with pytest.raises(UserError, match=r"damaged .* remove it to measure again"):
        reusable(out, hashes)


@pytest.mark.parametrize("what", ["config", "data", "checkpoint", "code"])
@pytest.mark.parametrize("state", ["measured", "only trained"])
def test_other_things_are_refused_by_the_command(
    what: str, state: str, measured: Path, pretrained: Pretrained, finetune: Finetune, tmp_path: Path, cohort: Path
) -> None:
    """Changed for real: a key, a label of the data set, a weight, and the code that the folder was made with."""
    out = Path(shutil.copytree(measured, tmp_path / "run"))
    more: list[str] = []
    run = Path(shutil.copytree(pretrained("gimp"), tmp_path / "pretrained"))
    if state == "only trained":
        (out / "result.json").unlink()
    if what == "config":
        more = ["protocol.weight_decay=0.2"]
    if what == "data":
        data = Path(shutil.copytree(cohort, tmp_path / "data"))
        more = [f"data.path={relabelled(data, lambda row, line: line.replace('site0', 'site1') if row == 2 else line)}"]
        assert (data / "labels.csv").read_bytes() != (cohort / "labels.csv").read_bytes()
    if what == "checkpoint":
        from safetensors.torch import load_file, save_file

        weights = load_file(run / "weights.safetensors")
        weights[next(iter(weights))].view(-1)[0] += 1
        save_file(weights, run / "weights.safetensors")
        more = ["--init", str(run)]
    if what == "code":
        for path in [
            out / "config.json",
            *out.rglob("point.json"),
            *([out / "result.json"] if state == "measured" else []),
        ]:
            path.write_text(path.read_text().replace(code_hash("gimp"), "0" * 16))
    content = {p: p.read_bytes() for p in out.rglob("*.json") if p.name != "config.json"}
    ended = finetune(out, *words(pretrained, *more))
    assert ended.codes == [2], ended.text
    assert "another configuration" in ended.text or "made from other things" in ended.text
    assert {p: p.read_bytes() for p in content} == content


@pytest.mark.parametrize("state", ["measured", "only trained"])
def test_another_version_of_the_code_can_be_accepted(
    state: str, measured: Path, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    out, other = Path(shutil.copytree(measured, tmp_path / "run")), "0" * 16
    whole = json.loads((out / "result.json").read_bytes())
    for path in [out / "config.json", *out.rglob("point.json"), out / "result.json"]:
        path.write_text(path.read_text().replace(code_hash("gimp"), other))
    if state == "only trained":
        (out / "result.json").unlink()
    refused = finetune(out, *words(pretrained))
    assert refused.codes == [2]
    assert "resume.accept_code=true" in refused.text
    ended = finetune(out, *words(pretrained, "resume.accept_code=true"))
    assert ended.codes == [0], ended.text
    assert other in ended.text, "it is said which code made it"
    found = json.loads((out / "result.json").read_bytes())
    assert found["metrics"] == whole["metrics"]
    if state == "only trained":
        assert found["code_accepted"] == [other]
        assert found["hashes"]["code"] == code_hash("gimp")
    else:
        assert found["hashes"]["code"] == other, "a result that is taken as it is stays as it is"


def test_cases_are_kept_for_paired_tests(
    measured: Path, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    from trainer.downstream.metrics.statistics import paired

    ended = finetune(tmp_path / "other", *words(pretrained, "--random"))
    assert ended.codes == [0], ended.text
    both = [
        [Predictions.load(p) for p in sorted((out / "predictions").glob("seed-*.npz"))]
        for out in (measured, tmp_path / "other")
    ]
    assert [len(b) for b in both] == [2, 2]
    compared: Any = paired(both[0], both[1], "auc", draws=200)
    assert np.isfinite([compared.difference, compared.low, compared.high]).all()


def test_two_data_sets_of_one_name_differ_by_what_they_hold(tmp_path: Path) -> None:
    """What the data hash stands for: other labels, another fingerprint."""
    from shards.read.dataset import Dataset

    a, b = planted(tmp_path / "a"), planted(tmp_path / "b", lambda i, s, g: {**g, "grade": 0.0})
    assert Dataset.open(a).fingerprint != Dataset.open(b).fingerprint
