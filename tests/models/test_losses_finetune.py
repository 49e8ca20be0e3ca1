"""Downstream losses against literal formulas and other libraries, on ordinary and degenerate batches, on several ranks."""

from __future__ import annotations

import math

import downstream_ranks as ranks
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import finetune as losses

NAN = float("nan")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------------------ tables


def test_bce_is_the_mean_over_known_entries_of_samples_that_count():
    logits, w = drawn(4, 3), torch.tensor([1.0, 1, 0, 1])
    target = torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], [1, 1, 1], [0, 1, 1]])
    terms = []
    for b, k in ((0, 0), (0, 1), (3, 0), (3, 1), (3, 2)):
        p = 1 / (1 + math.exp(-float(logits[b, k])))
        terms.append(-math.log(p if target[b, k] == 1 else 1 - p))
    assert float(losses.bce(logits, target, w)) == pytest.approx(sum(terms) / 5, rel=1e-5)
    columns = [(terms[0] + terms[2]) / 2, (terms[1] + terms[3]) / 2, terms[4]]
    assert float(losses.bce(logits, target, w, "sum")) == pytest.approx(sum(columns), rel=1e-5)


def test_binary_takes_one_column_with_or_without_its_axis():
    logits, target, w = drawn(5, 1), torch.tensor([0, 1, 1, 0, 1]), torch.ones(5)
    want = F.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    torch.testing.assert_close(losses.bce(logits, target, w), want)
    torch.testing.assert_close(losses.bce(logits[:, 0], target, w), want)
    with pytest.raises(AssertionError, match="outputs"):
        losses.bce(drawn(5, 2), target, w)


@pytest.mark.parametrize("code", [torch.tensor([2, 0, -1, 1]), torch.tensor([2.0, 0.0, NAN, 1.0])])
def test_multiclass(code):
    logits = drawn(4, 3)
    want = F.cross_entropy(logits[[0, 3]], torch.tensor([2, 1]))
    torch.testing.assert_close(losses.multiclass(logits, code, torch.tensor([1.0, 0, 1, 1])), want)
    with pytest.raises(AssertionError, match="a class of 2, but there are 2 outputs"):
        losses.multiclass(logits[:, :2], code, torch.ones(4))


def test_ordinal_targets_are_the_first_ones():
    """The paper's "class three = [1, 1, 1, 0, 0]" counts classes from 1: grade 2."""
    made = losses.ordinal_target(torch.tensor([2, 0, 4]), 5).tolist()
    assert made == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    logits, grade = drawn(3, 5), torch.tensor([2.0, NAN, 4.0])
    want = F.binary_cross_entropy_with_logits(logits[[0, 2]], torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    torch.testing.assert_close(losses.ordinal(logits, grade, torch.ones(3)), want)


def test_mse_and_the_papers_sum_of_four():
    target = drawn(2000, 4)
    target = (target - target.mean(0)) / target.std(0, correction=0)
    predicted_mean = torch.zeros(2000, 4)
    assert float(losses.mse(predicted_mean, target, torch.ones(2000), "sum")) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.mse(predicted_mean, target, torch.ones(2000))) == pytest.approx(1.0, rel=1e-5)
    w, known = torch.tensor([1.0, 1, 0]), torch.tensor([1.0, NAN, 7.0])
    assert float(losses.mse(torch.tensor([3.0, 5.0, 5.0]), known, w)) == 4.0


# --------------------------------------------------------------------------------------------------------------------- Cox


def literal_cox(risk, time, event, ties):
    """The sums of the papers, one event at a time."""
    total, n = torch.zeros((), dtype=risk.dtype), 0
    for t in sorted({float(x) for x, e in zip(time, event, strict=True) if e}):
        died = [i for i in range(len(time)) if time[i] == t and event[i]]
        at_risk = sum(risk[i].exp() for i in range(len(time)) if time[i] >= t)
        dying = sum(risk[i].exp() for i in died)
        for k, i in enumerate(died):
            less = k / len(died) * dying if ties == "efron" else 0.0
            total, n = total + torch.log(at_risk - less) - risk[i], n + 1
    return total / max(1, n)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.floats(-3, 3)), min_size=1, max_size=9))
def test_cox_is_its_formula(ties, rows):
    time, event, risk = (torch.tensor([float(r[i]) for r in rows]) for i in range(3))
    one, two = risk.clone().requires_grad_(), risk.double().requires_grad_()
    got = losses.cox(one, torch.stack([time, event], 1), torch.ones(len(rows)), ties)
    got.backward()
    assert one.grad.isfinite().all()
    if event.any():
        want = literal_cox(two, time, event, ties)
        want.backward()
        torch.testing.assert_close(got, want.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.grad, two.grad.float(), rtol=1e-4, atol=1e-5)
    else:
        assert got == 0
        assert not one.grad.any()


@pytest.mark.filterwarnings("ignore")
def test_cox_equals_lifelines():
    """lifelines fits by Efron; its log-likelihood at its own optimum is ours, and ours is flat there."""
    pandas, lifelines = pytest.importorskip("pandas"), pytest.importorskip("lifelines")
    x = drawn(60, 2)
    time = (torch.exp(-x[:, 0] + 0.3 * drawn(60, seed=1)) * 4).ceil()
    event = (torch.rand(60, generator=torch.Generator().manual_seed(2)) < 0.7).float()
    assert len(time.unique()) < 30, "ties are the point"
    table = pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "time": time, "event": event}, dtype=float)
    fit = lifelines.CoxPHFitter().fit(table, "time", "event")
    beta = torch.tensor(fit.params_.to_numpy(), dtype=torch.float32, requires_grad=True)
    loss = losses.cox(x @ beta, torch.stack([time, event], 1), torch.ones(60))
    assert -float(loss) * float(event.sum()) == pytest.approx(fit.log_likelihood_, rel=1e-5)
    loss.backward()
    assert beta.grad.abs().max() < 1e-3
    breslow = losses.cox(x @ beta.detach(), torch.stack([time, event], 1), torch.ones(60), "breslow")
    assert abs(float(breslow - loss)) > 1e-3, "the two ways with ties must differ, or this test proves nothing"


def test_cox_leaves_out_padding_and_the_unknown_and_bears_any_scale():
    risk, target = drawn(6), torch.tensor([[3.0, 1], [1, 1], [2, 0], [2, 1], [9, 1], [NAN, 1]])
    w = torch.tensor([1.0, 1, 1, 1, 0, 1])
    want = losses.cox(risk[:4], target[:4], torch.ones(4))
    torch.testing.assert_close(losses.cox(risk[:, None], target, w), want)
    torch.testing.assert_close(losses.cox(risk + 70, target, w), want, rtol=1e-4, atol=1e-4)
    far = (risk * 1e4).requires_grad_()
    losses.cox(far, target, w).backward()
    assert far.grad.isfinite().all()
    with pytest.raises(AssertionError, match="neither efron nor breslow"):
        losses.cox(risk, target, w, "exact")


# ------------------------------------------------------------------------------------------------------------ segmentation


def masks(B=4, K=2, side=8):
    mask = (torch.rand(B, K, side, side, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    mask[1] = 0
    return drawn(B, K, side, side), mask, torch.tensor([1.0, 1, 0, 1])


def test_mask_terms_are_their_formulas():
    logits, mask, w = masks()
    rows, p, t = [0, 1, 3], logits.sigmoid().double(), mask.double()
    bce = -(t * p.log() + (1 - t) * (1 - p).log())
    p_t, a_t = torch.where(t == 1, p, 1 - p), torch.where(t == 1, 0.25, 0.75)
    focal = -a_t * (1 - p_t) ** 2 * p_t.log()
    wants = {losses.mask_bce(logits, mask, w): bce, losses.mask_focal(logits, mask, w, alpha=0.25): focal}
    for got, want in wants.items():
        torch.testing.assert_close(got, want[rows].mean().float(), rtol=1e-5, atol=1e-6)
    for squared in (False, True):
        dice = [
            (2 * sum(a * b for a, b in zip(pp, tt, strict=True)) + 1)
            / (sum(a**2 for a in pp) + sum(tt) + 1 if squared else sum(pp) + sum(tt) + 1)
            for i in rows
            for pp, tt in [(p[i, k].flatten().tolist(), t[i, k].flatten().tolist()) for k in range(2)]
        ]
        got = losses.soft_dice(logits, mask, w, squared=squared)
        assert float(got) == pytest.approx(1 - sum(dice) / len(dice), rel=1e-5)
    terms = losses.mask_bce(logits, mask, w), losses.soft_dice(logits, mask, w)
    torch.testing.assert_close(losses.bce_dice(logits, mask, w, 0.2, 0.8), 0.2 * terms[0] + 0.8 * terms[1])
    terms = losses.mask_focal(logits, mask, w), losses.soft_dice(logits, mask, w, squared=True)
    torch.testing.assert_close(losses.focal_dice(logits, mask, w), 2 * terms[0] + terms[1])


def test_focal_is_torchvisions():
    ops = pytest.importorskip("torchvision.ops")
    logits, mask, _ = masks()
    got = losses.mask_focal(logits * 5, mask, torch.ones(4), gamma=2.0, alpha=0.25)
    torch.testing.assert_close(got, ops.sigmoid_focal_loss(logits * 5, mask, 0.25, 2.0, reduction="mean"))


def test_sure_predictions_have_torchmetrics_dice():
    dice_score = pytest.importorskip("torchmetrics.functional.segmentation").dice_score
    logits, mask, _ = masks(K=1)
    logits[:, :, :3], mask[:, :, :2] = 9.0, 1.0  # overlap, so that no score is 0 / 0
    hard = (logits > 0).float()
    want = dice_score(hard.long(), mask.long(), num_classes=1, input_format="one-hot").mean()
    got = losses.soft_dice((2 * hard - 1) * 200, mask, torch.ones(4), smooth=1e-6)
    torch.testing.assert_close(got, 1 - want, rtol=1e-5, atol=1e-6)


def test_focal_and_dice_bear_sure_mistakes_and_empty_masks():
    logits = torch.tensor([300.0, -300.0]).view(1, 1, 1, 2).requires_grad_()
    wrong = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    losses.focal_dice(logits, wrong, torch.ones(1)).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[..., 0] > 0 > logits.grad[..., 1], "a sure mistake still pulls"
    empty = torch.zeros(1, 1, 4, 4)
    assert float(losses.soft_dice(empty - 200, empty, torch.ones(1))) == 0.0
    with pytest.raises(AssertionError, match="needs smooth"):
        losses.soft_dice(empty, empty, torch.ones(1), smooth=0.0)
    with pytest.raises(AssertionError, match=r"mask \(1, 1, 2, 2\)"):
        losses.mask_bce(empty, empty[..., :2, :2], torch.ones(1))


# ---------------------------------------------------------------------------------------------------------------- all losses


@pytest.mark.parametrize("name", list(ranks.jobs()))
def test_nothing_that_counts_gives_zero_with_gradient_zero(name):
    loss, outputs, targets = ranks.jobs()[name]
    outputs = outputs.clone().requires_grad_()
    value = loss(outputs, targets, torch.zeros(ranks.G))
    value.backward()
    assert value == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


@pytest.mark.parametrize("name", list(ranks.jobs()))
def test_padding_does_not_enter_and_half_precision_is_summed_in_float(name):
    loss, outputs, targets = ranks.jobs()[name]
    padded = outputs.clone()
    padded[[2, 7]] = 50.0
    torch.testing.assert_close(loss(padded, targets, ranks.weights()), loss(outputs, targets, ranks.weights()))
    assert loss(outputs.bfloat16(), targets, ranks.weights()).dtype == torch.float32


@pytest.mark.ranks
@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks_equal_one(world, tmp_path):
    one = ranks.results(0, 1)
    assert all(one[n]["grad"].any() for n in one if not n.endswith(("unknown", "no_event", "mean")))
    for many in ranks.run(tmp_path, world):
        for name, want in one.items():
            torch.testing.assert_close(many[name], want, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
