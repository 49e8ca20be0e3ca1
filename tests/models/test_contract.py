"""The contract, for every registered method: a new file in models/methods/ and its demo recipe are all it takes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import ranks
import torch
import yaml
from synthetic import RECIPES, batch, build, records, schema, small_options, tuned
from toys import TOY_STAGES, TOYS

from models.contract import Batch, Encoded, Method, MethodError, Schema
from models.contract.start_files import with_start_file
from models.describe import options_of
from models.finetuned import STAGE, Downstream
from models.registry import families, get_method, method_names
from tests.models.steady import in_double

NAMES = method_names()
# Without building any of them: that it names the stages of `stages` is a test below.
PRETRAINED = [(name, stage) for name in NAMES for stage in get_method(name).outline]
# A system that learns from a task's labels alone is asked the same with a head on it: two classes, or masks where it draws them.
STAGES = PRETRAINED + [(name, STAGE) for name in sorted(set(NAMES) - {n for n, _ in PRETRAINED})]
# Options that take weights or terms away: the rest must still be whole.
VARIANTS = [
    ("mrm_relation", "pretrain", {"relations": "self"}),
    ("mrm_relation", "pretrain", {"relations": "self", "match": "self"}),
    ("mrm_relation", "pretrain", {"match": "cross"}),
    ("mrm_relation", "pretrain", {"relations": "self", "match_weight": 0.0}),
    ("mrm_relation", "pretrain", {"genetics": [], "relations": "self"}),
]
SEEING = [(n, s) for n, s in STAGES if "image" in get_method(n).inputs]
CASES = [(name, stage, {}) for name, stage in STAGES] + VARIANTS
every_case = pytest.mark.parametrize(
    ("name", "stage", "options"), CASES, ids=["-".join(map(str, (n, s, *o.items()))) for n, s, o in CASES]
)
every_method = pytest.mark.parametrize("name", NAMES)
every_stage = pytest.mark.parametrize(("name", "stage"), STAGES)


def entered(name: str, stage: str, train: bool = False, **options) -> Method:
    method = (tuned if stage == STAGE else build)(name, **options)
    method.enter(stage)
    return method.train(train)


def in_mode(name: str, stage: str, training: bool) -> Method:
    """In evaluation, or as it trains: batch statistics are taken, but nothing is dropped at random."""
    return entered(name, stage, train=training, still=training)


both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])


def assert_same_losses(a, b, rtol: float = 1e-5) -> None:
    for part in ("losses", "diagnostics"):
        assert a[part].keys() == b[part].keys()
        for term in a[part]:
            torch.testing.assert_close(
                a[part][term], b[part][term], rtol=rtol, atol=1e-6, msg=lambda m, t=term: f"{t}: {m}"
            )


@every_method
def test_is_a_documented_method(name):
    cls = get_method(name)
    assert cls.name == name
    assert cls.paper, "name the paper"
    assert inspect.getdoc(inspect.getmodule(cls))
    silent = [o.name for o in options_of(cls.Options) if not o.meaning]
    assert not silent, "options without a docstring"


@every_method
def test_what_a_method_says_of_its_stages_is_so(name):
    """`outline` and `pairs` are for people without data; with data, `stages` says the same."""
    cls, stages = get_method(name), build(name).stages()
    words = {s.name: ", ".join(s.reads) for s in stages}
    wanted = f"`outline` names each stage of `stages` and its fields, in words: {words}"
    assert list(cls.outline) == list(words), wanted
    for stage in stages:
        assert isinstance(cls.outline[stage.name], str), wanted
        assert not [f for f in stage.reads if f not in re.findall(r"\w+", cls.outline[stage.name])], wanted
    assert cls.pairs, "`pairs` says what it learns from: 'slide bag + RNA-seq'"


@every_method
def test_unknown_option_is_refused_with_its_neighbour(name):
    cls = get_method(name)
    known = max(cls.Options.model_fields, key=len)
    with pytest.raises(MethodError, match=rf"method\.{known}x: unknown key; did you mean '{known}'"):
        cls.Options.parse({f"{known}x": 1})


@every_method
def test_recipes_parse(name):
    found = sorted((RECIPES / name).glob("*.yaml"))
    assert {p.stem for p in found} >= {"recommended", "paper", "demo"}
    for path in found:
        recipe = yaml.safe_load(path.read_text())
        options, given = get_method(name).Options, recipe.get("method") or {}
        if given.get("image", {}).get("init") == "file":  # the recipe asks for a file that everyone has somewhere else
            given = with_start_file(options, given, "mae.pth")
        options.parse(given)
        assert set(recipe.get("stages") or {}) <= {s for n, s in PRETRAINED if n == name}, path.name


@every_method
def test_data_that_does_not_fit_is_refused(name):
    options = get_method(name).Options.parse(small_options(name))
    with pytest.raises(MethodError, match="no field"):
        get_method(name)(options, Schema({}, schema().labels))


@every_stage
def test_sample_reads_only_what_the_stage_names_and_repeats_itself(name, stage):
    method = entered(name, stage)
    [fields] = [s.reads for s in method.stages() if s.name == stage]
    answers = {"mask"} if stage == STAGE and method.encoder.draws_masks else set()
    for record in records(3):
        a, b = (method.sample(record, np.random.default_rng(5)) for _ in range(2))
        assert set(record.reads) <= {*fields, *answers}
        assert a.present == b.present
        for key in a.arrays:
            np.testing.assert_array_equal(a.arrays[key], b.arrays[key])


@pytest.mark.parametrize(("name", "stage"), SEEING)
def test_images_of_one_channel_are_read(name, stage):
    """As grey films are stored; `record` has three."""
    method, grey = entered(name, stage), records(4)
    for record in grey:
        record.fields |= {f: v[..., :1] for f, v in record.fields.items() if f.startswith("image")}
    samples = [method.sample(r, np.random.default_rng(i)) for i, r in enumerate(grey)]
    with torch.no_grad():
        assert method(method.collate(samples))["total"].isfinite()


@every_case
def test_every_trainable_parameter_gets_a_finite_gradient(name, stage, options):
    method = entered(name, stage, train=True, **options)
    out = method(batch(method, records(8)))
    assert out.losses
    out.total.backward()
    trainable = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert trainable
    assert not [n for n, p in trainable.items() if p.grad is None], "no gradient"
    assert not [n for n, p in trainable.items() if not p.grad.isfinite().all()], "not finite"
    assert not [n for n, p in trainable.items() if not p.grad.any()], "all zero"
    assert not [n for n, p in method.named_parameters() if not p.requires_grad and p.grad is not None], "frozen"
    grouped = [id(p) for g in method.param_groups() for p in g.params]
    assert sorted(grouped) == sorted(id(p) for p in trainable.values()), (
        "groups must hold every trainable parameter once"
    )


@every_stage
def test_a_few_steps_lower_the_loss(name, stage):
    method = entered(name, stage)
    optimizer = torch.optim.AdamW([{"params": g.params} for g in method.param_groups()], 1e-3)
    data = batch(method, records(8))
    first = method(data).total.item()
    for _ in range(12):
        optimizer.zero_grad()
        method(data).total.backward()
        optimizer.step()
    assert method(data).total.item() < 0.98 * first


@every_stage
def test_save_and_load(name, stage):
    method, other = entered(name, stage), entered(name, stage, seed=1)
    data = batch(method, records(6))
    assert method(data).total != other(data).total, "the seed must matter, or this test proves nothing"
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(data).total, other(data).total)


@both_modes
@every_stage
def test_padding_of_weight_zero_is_ignored(name, stage, training):
    check_padding(name, stage, training)


def check_padding(name: str, stage: str, training: bool) -> None:
    """What samples of weight 0 hold, and that they are there, changes no loss, and no buffer that training moves."""
    method, again = in_mode(name, stage, training), in_mode(name, stage, training)
    real, padded = batch(method, records(6)), batch(method, records(8))
    padded.weight_B[6:] = 0
    a, b = method(real), again(padded)
    assert_same_losses(a, b)
    for key, value in method.named_buffers():
        torch.testing.assert_close(again.get_buffer(key), value, rtol=1e-5, atol=1e-6, msg=key)
    assert not torch.equal(a.total, method(batch(method, records(8))).total)


@both_modes
@every_stage
def test_absent_modalities_do_not_enter(name, stage, training):
    check_absent(name, stage, training)


def check_absent(name: str, stage: str, training: bool) -> None:
    """What stands in the place of a field that a sample lacks changes nothing; a batch without any has a finite loss."""
    modalities = list(batch(entered(name, stage), records(2)).present)
    for modality in modalities:
        method, again = in_mode(name, stage, training), in_mode(name, stage, training)
        data = lacking(method, modality, 8, (0, 3))
        assert data.present[modality].tolist() == [i not in (0, 3) for i in range(8)], (
            f"`present['{modality}']`: keys are names of fields, and its value says of a sample without that field that it is missing"
        )
        clean = method(data)
        clean.total.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
        for key in [k for k in data if k == modality]:
            data[key][[0, 3]] = 7
        assert_same_losses(clean, again(data))
        nobody = again.eval()(lacking(method, modality, 4, range(4)))
        assert nobody.total.isfinite()


def lacking(method: Method, modality: str, n: int, which: Iterable[int]) -> Batch:
    """A batch of n samples, some of which lack a modality; a mask's image is taken away later, since it is read with its image alone."""
    if isinstance(method, Downstream) and modality in method.encoder.inputs and method.encoder.draws_masks:
        data = batch(method, records(n))
        data.present[modality][list(which)] = False
        return data
    return batch(method, records(n, missing={i: [modality] for i in which}))


@every_stage
def test_bfloat16(name, stage):
    method = entered(name, stage)
    exact = method(batch(method, records(6)))
    out = method.to(torch.bfloat16)(batch(method, records(6)))
    for term, value in out.losses.items():
        assert value.isfinite()
        torch.testing.assert_close(value.float(), exact.losses[term].float(), rtol=0.1, atol=0.05)


@every_stage
def test_chance(name, stage):
    method = entered(name, stage)
    chance = method.chance(8)
    assert set(chance) <= set(method(batch(method, records(8))).losses)
    assert all(math.isfinite(v) and v > 0 for v in chance.values())


@every_method
def test_encode_is_batch_invariant_and_deterministic(name):
    method = entered(name, "")
    together = method.encode(batch(method, records(5, missing={1: method.inputs[1:]})))
    for i in range(5):
        alone = method.encode(batch(method, records(5, missing={1: method.inputs[1:]})[i : i + 1], epoch=9))
        torch.testing.assert_close(alone["pooled_BD"][0], together["pooled_BD"][i], rtol=1e-4, atol=1e-5)
        real = [e["tokens_BLD"][j][e["mask_BL"][j]] for e, j in ((alone, 0), (together, i))]
        torch.testing.assert_close(*real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, s in STAGES if s == STAGE])
def test_what_a_head_says_does_not_depend_on_the_batch(name):
    model = entered(name, STAGE)
    together, made = model.scores(batch(model, records(5)))[0], records(5)
    for i in range(5):
        alone = model.scores(batch(model, made[i : i + 1]))[0][0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5)


@every_method
def test_encode_follows_its_contract(name):
    method = entered(name, "")
    data = batch(method, records(3))
    encoded = method.encode(data)
    assert isinstance(encoded, Encoded)
    tokens, mask = encoded["tokens_BLD"], encoded["mask_BL"]
    assert tokens.shape[:2] == mask.shape
    assert mask.dtype == torch.bool
    assert encoded["pooled_BD"].ndim == 2
    encoded["pooled_BD"].square().sum().backward()
    assert any(p.grad is not None for p in method.parameters()), "fine-tuning needs gradients"


# In float32 the rounding of another order of sums carries a value over the kink of one of many ReLUs behind batch norms, and with it
# the gradients of a filter.
DEEP = {*families()["segmentation"], *filter(in_double, NAMES)}
RANKED = [
    (n, s, {**o, "training": t, **({"double": True} if n in DEEP else {})}) for n, s, o in CASES for t in (False, True)
]
# Not among the variants: the last scale of each of its blocks starts at zero, and so does the gradient of what comes before it.
RESNET = {"image": {"kind": "resnet", "name": "resnet10t", "image_size": 32}}
RANKED += [("simclr", "pretrain", {**RESNET, "training": t}) for t in (False, True)]
RANKED += [(toy, stage, {"training": t}) for _, toy, stage in TOY_STAGES for t in (False, True)]


@pytest.fixture(scope="module")
def on_two_ranks(request, tmp_path_factory) -> Callable[[tuple[str, str, dict]], list[dict]]:
    """Of a case the results of both ranks. All that were asked for in one start; with `-k NAME` that is one method's."""
    asked = [i.callspec.params for i in request.session.items if "on_two_ranks" in getattr(i, "fixturenames", ())]
    jobs = [c for c in RANKED if any(c == p.get("case") or c[:2] == (p.get("toy"), p.get("stage")) for p in asked)]
    results = ranks.run(tmp_path_factory.mktemp("ranks"), jobs)
    return lambda case: [of_rank[jobs.index(case)] for of_rank in results]


def check_ranks(case: tuple[str, str, dict], on_two_ranks) -> None:
    """Losses, diagnostics, averaged gradients and buffers of two ranks are those of one that has the whole batch."""
    name, stage, options = case
    one = ranks.result(name, stage, 0, 1, **options)
    for two in on_two_ranks(case):
        assert_same_losses(one, two)
        assert one["grads"].keys() == two["grads"].keys()
        for part in ("grads", "buffers"):
            scales = {key: value.double().abs().max().item() for key, value in one[part].items()}
            # A bias before a softmax or a batch norm has no gradient but rounding, which is measured against the others'.
            typical = float(np.median([s for s in scales.values() if s])) if any(scales.values()) else 0.0
            for key, value in one[part].items():
                atol = 2e-5 * max(scales[key], typical) + 1e-9
                torch.testing.assert_close(two[part][key], value, rtol=1e-4, atol=atol, msg=key)


@pytest.mark.ranks
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "case", [c for c in RANKED if c[0] not in TOYS], ids=lambda c: "-".join(map(str, (*c[:2], *c[2].items())))
)
def test_two_ranks_equal_one(case, on_two_ranks):
    check_ranks(case, on_two_ranks)


# ------------------------------------------------------------------------------------ the tests above can see batch statistics


every_toy = pytest.mark.parametrize(
    ("kind", "toy", "stage"), TOY_STAGES, ids=[f"{toy}-{stage}" for _, toy, stage in TOY_STAGES]
)


@every_toy
def test_plain_batch_norm_breaks_the_contract_in_training_and_the_global_one_keeps_it(kind, toy, stage):
    check_padding(toy, stage, False)
    for check in (check_padding, check_absent):
        if kind == "global":
            check(toy, stage, True)
        elif (toy, check) != ("plain_net", check_absent):  # a U-Net sees nothing of what stands for an absent image
            with pytest.raises(AssertionError):
                check(toy, stage, True)


@pytest.mark.ranks
@pytest.mark.timeout(180)
@every_toy
def test_two_ranks_show_a_plain_batch_norm(kind, toy, stage, on_two_ranks):
    check_ranks((toy, stage, {"training": False}), on_two_ranks)
    if kind == "global":
        check_ranks((toy, stage, {"training": True}), on_two_ranks)
    else:
        with pytest.raises(AssertionError):
            check_ranks((toy, stage, {"training": True}), on_two_ranks)
