"""AttMask against a few literal lines: what is hidden, who answers for whom, centres, schedules; and the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records
from views_packs import Pack

from models.contract import Batch, MethodError
from models.encoders.positions import carried, regridded
from models.layers.attention_masks import hidden_first, shown_again
from models.losses.distillation import Centre
from models.losses.prototypes import Prototypes
from models.registry import get_method


def started(**options):
    method = build("attmask", still=True, **options)
    method.enter("pretrain")
    return method.train()


# ---------------------------------------------------------------------------------------------------------------- masks


def test_the_most_attended_are_hidden_and_hints_are_of_the_very_top():
    torch.manual_seed(0)
    score, noise = torch.rand(5, 20), torch.rand(5, 20)
    count = torch.tensor([0, 3, 8, 20, 1])
    hidden = hidden_first(score, count)
    for row, marks, n in zip(score, hidden, count, strict=True):
        assert set(marks.nonzero()[:, 0].tolist()) == set(row.sort(descending=True).indices[:n].tolist())
    again = shown_again(score, noise, 4, torch.tensor([0, 1, 2, 4, 9]))
    for row, draw, marks, n in zip(score, noise, again, [0, 1, 2, 4, 4], strict=True):
        top = row.sort(descending=True).indices[:4]
        assert set(marks.nonzero()[:, 0].tolist()) == set(top[draw[top].argsort()[:n]].tolist())


@pytest.mark.parametrize("mask", ["hints", "high", "low", "random"])
def test_shares_are_drawn_for_each_crop_and_rows_are_left_whole(mask):
    method = started(mask=mask, mask_prob=0.5)
    data = batch(method, records(8))
    x = method._crops(data["views"])
    _, _, looked = method._teacher(x)
    hidden = method._hidden(looked, data)
    kept, ratio, again = (data[n].T.flatten() for n in ("kept", "ratio", "again"))
    N = looked.shape[1]
    shown = (again * 0.1 * N).long() if mask == "hints" else 0
    assert torch.equal(hidden.sum(1), ((ratio * N).long() - shown) * kept)
    rows = kept.nonzero()[:, 0]
    apart = [(looked[r][hidden[r]].mean() - looked[r][~hidden[r]].mean()).sign().item() for r in rows]
    if mask != "random":
        assert set(apart) == {-1.0 if mask == "low" else 1.0}


def test_published_one_share_serves_the_batch():
    method = started(conventions="published", mask="high", mask_prob=1.0)
    data = batch(method, records(5))
    data.weight_B[0] = 0  # the first that counts says it
    counts = method._counts(data, "ratio", 64)
    assert counts.unique().tolist() == [int(data["ratio"][1, 0] * 64)]
    assert len(started()._counts(data, "ratio", 64).unique()) > 2


# --------------------------------------------------------------------------------------------------------------- losses


def test_the_losses_are_those_of_the_paper():
    """Every crop's class token against each other large crop's of the teacher; hidden patches against the teacher's own."""
    method = started(mask_prob=0.7)
    with torch.no_grad():
        for centre in (method.class_centre, method.patch_centre):
            centre.centre_2K[0] = torch.linspace(-0.2, 0.3, 64)
    data = batch(method, records(3, missing={2: ["image"]}))
    tau_s, tau_t, c = 0.1, method.tau, torch.linspace(-0.2, 0.3, 64)
    x = method._crops(data["views"])
    class_t, patch_t, looked = method._teacher(x)
    hidden = method._hidden(looked, data)
    tokens = method._student(x, hidden)
    crops = method._answers(tokens, data)
    out = method(data)

    def cross(t, s):
        return -(((t - c) / tau_t).softmax(-1) * (s / tau_s).log_softmax(-1)).sum(-1)

    terms, patches = [], []
    for b in range(2):
        for q in range(2):
            terms += [cross(class_t[3 * q + b], crops[v, b]) for v in range(4) if v != q]
            row = 3 * q + b
            said = [
                cross(patch_t[row, n], method.head(tokens[row, 1 + n], patches=True))
                for n in hidden[row].nonzero()[:, 0]
            ]
            patches.append(torch.stack(said).mean() if said else torch.zeros(()))
    assert len(terms) == 2 * (2 * 4 - 2)
    torch.testing.assert_close(out.losses["class"], torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.losses["patch"], torch.stack(patches).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.total, out.losses["class"] + out.losses["patch"])


def test_centres_follow_all_that_count_in_training_alone():
    method = started()
    data = batch(method, records(4, missing={1: ["image"]}))
    class_t, patch_t, _ = method._teacher(method._crops(data["views"]))
    method.eval()(data)
    assert not method.class_centre.value().any()
    method.train()(data)
    there = [0, 2, 3, 4, 6, 7]
    torch.testing.assert_close(method.class_centre.value(), 0.1 * class_t[there].mean(0))
    torch.testing.assert_close(method.patch_centre.value(), 0.1 * patch_t[there].mean((0, 1)))


def test_a_centre_of_16_bits_keeps_what_it_rounds_away():
    exact, centre = Centre(8, 0.9), Centre(8, 0.9).to(torch.bfloat16)
    torch.manual_seed(0)
    for _ in range(200):
        x = torch.randn(4, 8) * 0.02 + 1
        for c in (exact, centre):
            c.follow(x, torch.ones(4))
    torch.testing.assert_close(centre.value(), exact.value(), rtol=2e-4, atol=0)
    before = exact.value().clone()
    exact.follow(x * torch.nan, torch.ones(4))
    exact.follow(x, torch.zeros(4))
    assert torch.equal(exact.value(), before), "a batch that is not finite, or of nobody"


def test_directions_with_a_gain_are_weight_normalisation():
    torch.manual_seed(0)
    last, x = Prototypes(4, 3, gain=True), torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    with torch.no_grad():
        last.gain_K.copy_(torch.tensor([0.5, 1, 2]))
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3, bias=False))
    theirs.load_state_dict(
        {"parametrizations.weight.original0": last.gain_K[:, None], "parametrizations.weight.original1": last.weight_KC}
    )
    torch.testing.assert_close(last(x), theirs(x))


def test_schedules():
    method = started(momentum=0.9, teacher_temperature=[0.04, 0.08], temperature_warmup=0.5, freeze_last=0.1)
    for done, m, tau in (
        (0.0, 0.9, 0.04),
        (0.25, 1 - 0.1 * (1 + math.sqrt(0.5)) / 2, 0.06),
        (0.5, 0.95, 0.08),
        (1.0, 1.0, 0.08),
    ):
        method.at(done)
        said = method(batch(method, records(3))).diagnostics
        assert said["momentum"].item() == pytest.approx(m)
        assert said["teacher_temperature"].item() == pytest.approx(tau)
        assert {f: m for _, (f, m) in method.teachers(done).items()} == {n: pytest.approx(m) for n in ("image", "head")}
    for done, moves in ((0.0, False), (0.1, True)):
        method.zero_grad()
        method.at(done)
        method(batch(method, records(3))).total.backward()
        assert bool(method.head.last.weight_KC.grad.any()) == moves
        assert method.head.mlp[0].weight.grad.any()


def test_the_teacher_starts_as_the_student_and_drops_no_path():
    method = build("attmask", image={"drop_path": 0.5})
    for n, p in method.named_parameters():
        if n.startswith("momentum_"):
            assert torch.equal(p, method.get_parameter(n.removeprefix("momentum_")))
    method.enter("pretrain")
    x = method._crops(batch(method, records(2))["views"])
    assert torch.equal(method.train()._teacher(x)[0], method._teacher(x)[0])
    assert not torch.equal(method.image(x), method.image(x))


def test_small_crops_lie_where_their_places_are():
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    whole = torch.stack([row, column], 2).flatten(0, 1)[None]
    for offset, second, third in ((0.0, 2.5, 4.5), (0.1, 1.5 / (4.1 / 8) - 0.5, 2.5 / (4.1 / 8) - 0.5)):
        places_HWD = regridded(whole, (8, 8), (4, 4), offset)[0].reshape(4, 4, 2)
        torch.testing.assert_close(places_HWD[1, 2], torch.tensor([second, third]), rtol=0, atol=0.03)
    places = torch.randn(1, 64, 6)
    torch.testing.assert_close(carried(places, (8, 8), (4, 4)), regridded(places, (8, 8), (4, 4)), rtol=1e-5, atol=1e-6)


def test_weight_decay_and_what_is_deployed():
    tokens = {"image.pos_embed", "image.cls_token", "mask.mask_token"}
    assert tokens <= set(started().no_weight_decay())
    assert not started(conventions="published").no_weight_decay()
    method = started(share_head=False, local_crops=0)
    data = batch(method, records(2))
    assert "local" not in data
    method(data).total.backward()
    assert method.head.patch_last.weight_KC.grad.any()
    method.enter("")
    assert not any(p.requires_grad for n, p in method.named_parameters() if not n.startswith("image."))
    assert set(batch(method, records(2))) == {"image"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": {"cls_token": False}}, "method.image.cls_token"),
        ({"ratio": [0.6, 0.2]}, "method.ratio: (0.6, 0.2) is no range"),
        ({"ratio": [0.0, 0.0]}, "method.ratio: (0.0, 0.0) is no range"),
        ({"local_size": 100}, "method.local_size: 100 is not a multiple of method.image.patch (16)"),
        ({"local_size": 100}, "up to method.image.image_size (224); use 96"),
        ({"local_size": 240}, "method.local_size: 240 is not a multiple"),
        ({"teacher_temperature": [0.0, 0.07]}, "method.teacher_temperature"),
        ({"image": {"kind": "resnet"}}, "method.image.kind"),
    ],
)  # fmt: skip
def test_what_makes_no_system_is_told(given, said):
    with pytest.raises(MethodError) as raised:
        get_method("attmask").Options.parse(given)
    assert said in str(raised.value)


# ------------------------------------------------------------------------------------------------------ the published code


def ours(n):
    side, part, *rest = n.split(".")
    if part == "head":
        place = {"weight_g": "gain_K", "weight_v": "weight_KC"}
        name = ".".join(rest) if rest[0] == "mlp" else f"last.{place[rest[1]]}"
        return f"{'momentum_' if side == 'teacher' else ''}head.{name}"
    if rest == ["masked_embed"]:
        return "mask.mask_token"
    return f"{'momentum_' if side == 'teacher' else ''}image.{'.'.join(rest)}"


def published(pack: Pack, **options):
    small = {"image_size": 64, "patch": 16, "dim": 64, "depth": 2, "heads": 4, "mlp_ratio": 4.0}
    heads = {"hidden": 96, "bottleneck": 32, "out_dim": 48}
    said = {"conventions": "published", "local_size": 32, "show": 0.25, "mask": "high", "temperature_warmup": 0.2}
    method = started(image=small, **heads, **said, **options)
    state = dict(method.state_dict())
    for n, value in pack.weights().items():
        state[ours(n)] = value.reshape(state[ours(n)].shape)
    centres = {"class": ("input.center", (1, 48)), "patch": ("input.center2", (1, 1, 48))}
    for name, (key, shape) in centres.items():
        value = torch.from_numpy(pack.rule.weights(key, shape)).flatten()
        state[f"{name}_centre.centre_2K"] = torch.stack([value, torch.zeros(48)])
    method.load_state_dict(state)
    method.at(0.5)
    method.pixels = lambda x: x
    return method


def published_batch(pack: Pack) -> Batch:
    views = [pack.image(f"input.global{i}", (3, 3, 64, 64)) for i in (1, 2)]
    local = [pack.image(f"input.local{i}", (3, 3, 32, 32)) for i in (0, 1)]
    draws = {"ratio": torch.full((3, 2), 0.5), "again": torch.full((3, 2), 0.5)}
    draws["kept"] = torch.from_numpy(pack.numbers["masking_draw"] < 0.5).reshape(2, 3).T
    noise = torch.ones(6, 16).scatter(1, torch.from_numpy(pack.numbers["hint_revealed_index"]), 0.0)
    draws["noise"] = noise.reshape(2, 3, 16).transpose(0, 1)
    images = {"views": torch.stack(views, 1), "local": torch.stack(local, 1)}
    return Batch(images | draws, {"image": torch.ones(3, dtype=torch.bool)})


@pytest.mark.real
def test_published_masks(real_data: Path):
    pack = Pack(real_data, "attmask")
    data = published_batch(pack)
    for mask, name in (("high", "mask_high"), ("low", "mask_low"), ("hints", "mask_hint")):
        method = published(pack)
        method.options = method.options.model_copy(update={"mask": mask})
        _, _, looked = method._teacher(method._crops(data["views"]))
        pack.equal(looked, "cls_attention")
        np.testing.assert_array_equal(method._hidden(looked, data).numpy(), pack.numbers[name], err_msg=name)


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    pack = Pack(real_data, "attmask")
    method, data = published(pack), published_batch(pack)
    x = method._crops(data["views"])
    class_t, patch_t, looked = method._teacher(x)
    tokens = method._student(x, method._hidden(looked, data))
    answers = method._answers(tokens, data)
    pack.equal(class_t, "teacher_cls")
    pack.equal(patch_t, "teacher_patch")
    pack.equal(answers[:2].flatten(0, 1), "student_cls")
    pack.equal(answers[2:].flatten(0, 1), "student_local_cls")
    pack.equal(method.head(tokens[:, 1:], patches=True), "student_patch")
    out = method(data)
    pack.equal(out.losses["class"], "loss_cls")
    pack.equal(out.losses["patch"], "loss_patch")
    pack.equal(out.total, "loss")
    pack.equal(method.class_centre.value()[None], "center_after")
    pack.equal(method.patch_centre.value()[None, None], "center2_after")
    out.total.backward()
    checked = 0
    for n in [k.removeprefix("grad:") for k in pack.numbers if k.startswith("grad:")]:
        pack.equal(method.get_parameter(ours(n)).grad.norm(), f"grad:{n}")
        checked += 1
    assert checked >= 8


@pytest.mark.real
def test_published_schedules(real_data: Path):
    """Theirs changes the temperature epoch by epoch: three values in three of ten, so that the last is reached after two."""
    pack = Pack(real_data, "attmask")
    method = started(temperature_warmup=0.2)
    for e, tau in enumerate(pack.numbers["teacher_temp_schedule"]):
        method.at(e / 10)
        assert method.tau == pytest.approx(float(tau), rel=1e-5)
    plain = started(momentum=0.996)
    for i, m in enumerate(pack.numbers["cosine_schedule_momentum"]):
        assert plain.teachers(i / 40)["momentum_image"][1] == pytest.approx(float(m), abs=1e-6)
