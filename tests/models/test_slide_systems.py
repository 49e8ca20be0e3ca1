"""What holds of every system that reads bags, asked of whichever are registered."""

from __future__ import annotations

import pytest
import slides
import torch
from synthetic import small_options, without_dropout

from models.contract import Batch, MethodError
from models.methods.slides._bag import BagMethod
from models.methods.slides._fused import FusedMethod
from models.registry import families, get_method

SYSTEMS = [n for n in families()["slides"] if issubclass(get_method(n), BagMethod)]
PAIRED = [n for n in families()["slides"] if "pretrain" in get_method(n).outline]
"""They are pre-trained, and answer from a slide, from genes, or from both."""
ORDERED = {"transmil", "gimp", "mgca_omic", "biovil_omic", "refers_omic"}
"""They see the order of patches."""
# A patch is in both groups of CLAM's recommended instance loss in no bag, so a bag of one has no such term, and the mean over bags of a
# batch is not that of bags alone; test_clam_equations.py asks for it.
UNEVEN = {("clam", "recommended")}
BAGS = (300, 12, 3, 1)


def small(name: str, **options) -> slides.Method:
    return slides.build(name, **{**small_options(name), **without_dropout(get_method(name)), **options})


FUSED = [n for n in SYSTEMS if issubclass(get_method(n), FusedMethod)]
CONVENTIONS = [
    (n, c)
    for n in sorted({*SYSTEMS, *PAIRED})
    for c in (("recommended", "published") if "conventions" in get_method(n).Options.model_fields else (None,))
]


@pytest.mark.parametrize("target", [slides.BINARY, slides.kinds(3)], ids=["binary", "three"])
@pytest.mark.parametrize(("name", "conventions"), CONVENTIONS)
def test_bags_of_any_length_stand_for_themselves(name, conventions, target):
    model = slides.tuned(small(name, **({"conventions": conventions} if conventions else {})), target)
    if (name, conventions) not in UNEVEN:
        slides.check_bags(model, lambda i: i % 2, BAGS, ordered=name in ORDERED)
    slides.check_missing(model, genes=name in PAIRED)


@pytest.mark.parametrize("name", FUSED)
def test_without_genes_there_is_no_answer_and_what_stands_in_their_place_changes_nothing(name):
    model, made = slides.tuned(small(name), slides.BINARY), slides.bags()
    whole = slides.batch_of(made, target=[0, 1, 0, 1])
    lacking = slides.batch_of(made, target=[0, 1, 0, 1])
    lacking.present["rna"][2], lacking["rna"][2] = False, torch.nan
    a, b = model.encoder.encode(whole), model.encoder.encode(lacking)
    assert not b["pooled_BD"][2].any()
    assert not b["mask_BL"][2].any()
    kept = [0, 1, 3]
    torch.testing.assert_close(b["pooled_BD"][kept], a["pooled_BD"][kept])
    assert b["tokens_BLD"].isfinite().all()
    _, grads = slides.losses(model, lacking)
    assert all(g.isfinite().all() for g in grads.values())


@pytest.mark.parametrize("name", PAIRED)
def test_a_pre_trained_system_answers_from_a_slide_alone(name):
    """And where genes are read but one sample lacks its own, that half is zero, and what stands in their place changes nothing."""
    method = slides.tuned(small(name), slides.BINARY).encoder
    both = slides.batch_of(slides.bags())
    alone = Batch({k: v for k, v in both.items() if k != "rna"}, {"patches": both.present["patches"]})
    whole, slide = method.encode(both)["pooled_BD"], method.encode(alone)["pooled_BD"]
    half = slide.shape[1]
    torch.testing.assert_close(whole[:, :half], slide)
    assert whole[:, half:].any(1).all()
    both.present["rna"][2], both["rna"][2] = False, torch.nan
    lacking = method.encode(both)["pooled_BD"]
    torch.testing.assert_close(lacking[:, :half], slide)
    assert not lacking[2, half:].any()
    kept = [0, 1, 3]
    torch.testing.assert_close(lacking[kept], whole[kept])


@pytest.mark.parametrize("name", FUSED)
def test_both_modalities_reach_the_answer(name):
    model, made = slides.tuned(small(name), slides.BINARY), slides.bags((7, 7))
    genes = [slides.genome(made[0]), slides.genome(made[0]) + 1]
    told = [model.logits(slides.batch_of([x], genes=[g]))[0].item() for x in made for g in genes]
    assert len({round(v, 6) for v in told}) == 4, told


@pytest.mark.parametrize("name", FUSED)
def test_genes_are_z_scores_of_the_training_split_cut_and_chosen(name):
    x, batch = slides.genome(torch.zeros(3)), slides.batch_of(slides.bags((3,)))
    field = slides.schema().fields["rna"]
    z = (x - torch.tensor(field.mean)) / torch.tensor(field.std)
    torch.testing.assert_close(small(name).genes(batch)[0], z.float())
    torch.testing.assert_close(small(name, genes={"clip": 0.5}).genes(batch)[0], z.clamp(-0.5, 0.5).float())
    stored = slides.build(name, **{**small_options(name), "genes": {"normalise": "none"}})
    torch.testing.assert_close(stored.genes(batch)[0], x)
    if name != "mcat":
        torch.testing.assert_close(small(name, genes={"top": 3}).genes(batch)[0], z[-3:].float())


@pytest.mark.parametrize("name", FUSED)
def test_data_without_what_genes_need_are_refused(name):
    cls = get_method(name)
    with pytest.raises(MethodError, match=r"needs statistics of 'rna'.*set method\.genes\.normalise=none"):
        cls(cls.Options.parse(small_options(name)), slides.schema(statistics=False))
    with pytest.raises(MethodError, match=r"method\.genes\.top: 99 of the 8 genes"):
        cls(cls.Options.parse({**small_options(name), "genes": {"top": 99}}), slides.schema())
    only = slides.schema()
    del only.fields["rna"]
    with pytest.raises(MethodError, match="has no field 'rna'"):
        cls(cls.Options.parse(small_options(name)), only)
