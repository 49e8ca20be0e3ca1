"""MedKLIP against a few literal lines: triplets, candidates, decoder, both losses; texts by a BERT; what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from synthetic import ENTITIES as NAMES
from synthetic import POSITIONS as PLACES
from synthetic import batch, build, records, schema

from models.contract import MethodError, Schema
from models.decoders.queries import QueryDecoder
from models.methods.contrastive.medklip.knowledge import (
    ENTITIES,
    POSITIONS,
    class_vectors,
    entity_texts,
    position_texts,
)
from models.methods.contrastive.medklip.method import drawn_candidates
from models.registry import get_method
from models.transforms.randaugment import OPERATIONS, augmented
from models.transforms.report_tokens import tokens_of

CNN = {"kind": "resnet", "name": "resnet10t", "image_size": 64}


def started(**options):
    method = build("medklip", **options)
    method.enter("pretrain")
    return method.eval()


def said(**cells):
    """A record whose triplets are these alone: entity=(position, state)."""
    record = records(1)[0]
    record.fields["triplets"] = np.full((51, 75), -1, np.int8)
    for entity, (position, state) in cells.items():
        record.fields["triplets"][PLACES.index(position), NAMES.index(entity)] = state
    return record


def sample(method, record, seed=0):
    return method.sample(record, np.random.default_rng(seed))


# --------------------------------------------------------------------------------------------------------------- triplets


def test_entities_and_positions_are_those_of_the_rules_each_with_a_sentence_of_its_own():
    assert list(ENTITIES) == NAMES
    assert list(POSITIONS) == PLACES
    for texts in (entity_texts("explanation"), position_texts()):
        assert len(set(texts)) == len(texts)
        assert all(5 <= len(t.split()) <= 20 and t.endswith(".") for t in texts)
    assert entity_texts("name")[73] == "tail abnorm obs"


def test_an_entity_is_present_if_it_is_anywhere_absent_if_only_that_is_said():
    record = said(opacity=("upper_left_lobe", 1), effusion=("pleural_unspec", 0))
    record.fields["triplets"][PLACES.index("rib"), NAMES.index("opacity")] = 0
    state_E = sample(started(), record).arrays["states"]
    assert np.flatnonzero(state_E == 1).tolist() == [NAMES.index("opacity")]
    assert np.flatnonzero(state_E == 0).tolist() == [NAMES.index("effusion")]
    assert (state_E == -1).sum() == 73


def test_candidates_are_a_true_position_and_others_that_are_not():
    true_P = np.isin(np.arange(51), (3, 17))
    drawn = [drawn_candidates(true_P, 7, np.random.default_rng(s)) for s in range(60)]
    assert {int(d[0]) for d in drawn} == {3, 17}
    assert all(len(set(d.tolist())) == 8 and not true_P[d[1:]].any() for d in drawn)
    assert {int(p) for d in drawn for p in d} == set(range(51))
    few = drawn_candidates(np.arange(51) >= 2, 7, np.random.default_rng(0))
    assert (sorted(few[1:3].tolist()), few[3:].tolist()) == ([0, 1], [-1] * 5)


def test_only_what_is_present_has_candidates():
    made = sample(started(negatives=3), said(opacity=("rib", 1), effusion=("rib", 0))).arrays["candidates"]
    assert made.shape == (75, 4)
    has_E = (made >= 0).all(1)
    assert np.flatnonzero(has_E).tolist() == [NAMES.index("opacity")]
    assert made[has_E][0, 0] == PLACES.index("rib")
    assert (made[~has_E] == -1).all()


@pytest.mark.parametrize(
    ("flip", "place", "other", "turned"),
    [
        ("swap", "upper_left_lobe", "upper_right_lobe", True),
        ("swap", "right_costophrenic", "left_costophrenic", True),
        ("swap", "aorta", "aorta", True),
        ("swap", "middle_right_lobe", "middle_right_lobe", False),
        ("swap", "right_atrium", "right_atrium", False),
        (True, "upper_left_lobe", "upper_left_lobe", True),
        (False, "upper_left_lobe", "upper_left_lobe", False),
    ],
)
def test_positions_follow_a_mirrored_image(flip, place, other, turned):
    method = started(flip=flip, views="paper")
    method.rule = replace(method.rule, rotate=0.0)
    record = said(nodule=(place, 1))
    record.fields["image"] = np.zeros((64, 64, 3), np.uint8)
    record.fields["image"][:, :32] = 200
    seen = set()
    for seed in range(12):
        made = sample(method, record, seed).arrays
        left = made["image"][:, :8].mean() > made["image"][:, -8:].mean()
        seen.add((bool(left), PLACES[made["candidates"][NAMES.index("nodule"), 0]]))
    assert seen == ({(True, place), (False, other)} if turned else {(True, place)})


def test_entities_that_are_left_out_are_not_asked_for():
    method = started(leave_out=["normal", "mass"])
    made = sample(method, said(mass=("rib", 1), clear=("rib", 1), chf=("rib", 0))).arrays["states"]
    assert (len(made), made[0], (made == 1).sum(), (made == 0).sum()) == (73, 1, 1, 1)
    assert method.asked(torch.randn(1, 65, 64)).shape == (1, 73, 32)


# ---------------------------------------------------------------------------------------------------------------- decoder


def test_the_decoder_is_the_librarys_with_norms_first():
    torch.manual_seed(0)
    ours = QueryDecoder(16, 2, 4, 24, 0.0)
    layer = torch.nn.TransformerDecoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=True)
    theirs = torch.nn.TransformerDecoder(layer, 2, torch.nn.LayerNorm(16))
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    theirs.norm.load_state_dict(ours.norm.state_dict())
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        whole, one = b.multihead_attn, b.self_attn
        pairs = {
            "attn.qkv": (one.in_proj_weight, one.in_proj_bias),
            "attn.out": (one.out_proj.weight, one.out_proj.bias),
            "query": (whole.in_proj_weight[:16], whole.in_proj_bias[:16]),
            "key_value": (whole.in_proj_weight[16:], whole.in_proj_bias[16:]),
            "out": (whole.out_proj.weight, whole.out_proj.bias),
            "ffn.0": (b.linear1.weight, b.linear1.bias),
            "ffn.3": (b.linear2.weight, b.linear2.bias),
            **{f"norm{i}": (getattr(b, f"norm{i}").weight, getattr(b, f"norm{i}").bias) for i in (1, 2, 3)},
        }
        state = {f"{n}.{k}": v for n, both in pairs.items() for k, v in zip(("weight", "bias"), both, strict=True)}
        a.load_state_dict(state)
    x, tokens = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    torch.testing.assert_close(ours(x, tokens), theirs(x, tokens), rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- losses


def shaken(**options):
    """With weights so far from 0 that answers differ."""
    method = started(**options)
    torch.manual_seed(3)
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return method


@pytest.mark.parametrize("scale", ["none", "width"])
def test_losses_are_means_over_what_is_said(scale):
    method = shaken(position_scale=scale, exist_weight=0.5, position_weight=2.0)
    data = batch(method, records(5, missing={1: ["triplets"], 2: ["image"]}))
    out = method(data)
    with torch.no_grad():
        answers_BEC = method.asked(method.image.tokens(method.pixels(data["image"])))
        places = [v / v.norm() for v in method.place.vector_NW]
        exist, position = [], []
        for b in (0, 3, 4):
            for e, state in enumerate(data["states"][b].tolist()):
                if state >= 0:
                    exist.append(-method.exist(answers_BEC[b, e]).log_softmax(0)[state])
                if state == 1:
                    y = method.position(answers_BEC[b, e])
                    dots = torch.stack([y @ places[p] for p in data["candidates"][b, e].tolist()])
                    position.append(-(dots / (math.sqrt(32) if scale == "width" else 1)).log_softmax(0)[0])
    assert (len(exist), len(position)) == (3 * 4, 3 * 2)
    wanted = {"exist": torch.stack(exist).mean(), "position": torch.stack(position).mean()}
    for name, value in wanted.items():
        torch.testing.assert_close(out.losses[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.total, 0.5 * wanted["exist"] + 2 * wanted["position"], rtol=1e-5, atol=1e-6)
    assert (out.counts["exist"], out.counts["position"]) == (12, 6)
    assert out.diagnostics["present"] == pytest.approx(0.5)
    assert out.diagnostics["mentioned"] == pytest.approx(4 / 75)


def test_where_nothing_is_present_or_nothing_is_said_losses_are_zero_and_not_nan():
    method = shaken().train()
    absent = batch(method, [said(effusion=("rib", 0)), said(effusion=("rib", 0))])
    out = method(absent)
    assert out.losses["position"] == 0
    assert out.losses["exist"] > 0
    out.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert method(batch(method, [said()])).total == 0


def test_chance_is_that_of_equal_answers():
    method = started(negatives=4)
    assert method.chance(8) == {"exist": math.log(2), "position": math.log(5)}
    with torch.no_grad():
        for head in (method.exist, method.position):
            head.weight.zero_()
            head.bias.zero_()
    losses = method(batch(method, records(3))).losses
    assert {n: v.item() for n, v in losses.items()} == pytest.approx(method.chance(3))


# ------------------------------------------------------------------------------------------------------------------ image


def test_the_last_stage_of_a_convolutional_network_is_left_out():
    method = started(image=CNN)
    images = torch.randn(2, 3, 64, 64)
    whole = timm.create_model("resnet10t", features_only=True).eval()
    own = {n.removeprefix("image.net."): v for n, v in method.state_dict().items() if n.startswith("image.net.")}
    missing = whole.load_state_dict(own, strict=False).missing_keys
    assert {n.split(".")[0] for n in missing if "num_batches" not in n} == {"layer4"}
    tokens = method.image.tokens(images)
    torch.testing.assert_close(tokens, whole(images)[3].flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert (method.image.strides, tokens.shape) == ((2, 4, 8, 16), (2, 16, 256))
    assert started(image=CNN, last_stage=True).image.strides[-1] == 32


def test_a_file_of_the_whole_network_starts_what_is_kept_of_it(tmp_path):
    torch.manual_seed(7)
    whole = timm.create_model("resnet10t")
    save_file(whole.state_dict(), tmp_path / "r.safetensors")
    method = build("medklip", image={**CNN, "init": "file", "init_file": str(tmp_path / "r.safetensors")})
    own = {n.removeprefix("image.net."): v for n, v in method.state_dict().items() if n.startswith("image.net.")}
    assert torch.equal(own["layer3.0.conv1.weight"], whole.state_dict()["layer3.0.conv1.weight"])
    with pytest.raises(MethodError, match=r"tensors behind its last map.*--to safetensors"):
        method.image.timm_state()


def test_operations_of_randaugment_by_hand():
    x = np.zeros((20, 40), np.uint8)
    x[8:12, 10:20] = 100
    picture = Image.fromarray(x)

    def made(name, strength):
        return np.asarray(OPERATIONS[name](picture, strength))

    assert np.array_equal(made("identity", 1.0), x)
    assert made("brightness", 0.5)[9, 15] == 145
    assert made("autocontrast", 0.0)[9, 15] >= 254
    assert np.array_equal(made("translate_x", 1.0)[:, :38], x[:, 2:])
    assert np.array_equal(made("translate_y", -1.0)[1:], x[:-1])
    rows = np.flatnonzero(made("rotate", 0.5).max(1))
    assert rows[-1] - rows[0] > 4
    assert made("shear_x", 1.0)[11].nonzero()[0][0] < made("shear_x", 1.0)[8].nonzero()[0][0]
    assert made("shear_y", 1.0)[:, 19].nonzero()[0][0] < made("shear_y", 1.0)[:, 10].nonzero()[0][0]
    assert np.asarray(OPERATIONS["equalise"](picture, 0.0)).max() >= 254
    assert len(np.unique(made("sharpness", -0.9))) > 2, "edges are smeared"


def test_as_many_operations_are_drawn_as_asked_for_again_by_the_same_numbers():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8))
    one, two, other = (np.asarray(augmented(picture, 3, 7, np.random.default_rng(s))) for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert augmented(picture, 0, 7, np.random.default_rng(0)) is picture
    plain, changed = (started(views="official", augmentations=n) for n in (0, 4))
    assert any(
        not np.array_equal(*(sample(m, records(1)[0], s).arrays["image"] for m in (plain, changed))) for s in range(3)
    )


# ------------------------------------------------------------------------------------------------------------------ texts


TEXT = {"dim": 16, "depth": 1, "heads": 2, "inner": 16, "places": 64}


@pytest.fixture
def of_a_bert(tmp_path):
    """Options by which a small BERT makes the vectors, whose vocabulary knows MedKLIP's words."""
    texts = [*entity_texts("explanation"), *entity_texts("name"), *position_texts()]
    words = {w.strip(".,") for t in texts for w in t.lower().split()}
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *sorted(words)])
    )
    given = {"text_vectors": "bert", "tokenizer": str(tmp_path / "vocab.txt")}
    torch.manual_seed(5)
    tokens = tokens_of(schema(), "report", given["tokenizer"])
    made = get_method("medklip").Options.parse({"text": {**TEXT, "dropout": 0.0}}).text.build(tokens.rows, 64)
    save_file(made.state_dict(), tmp_path / "bert.safetensors")
    given["text"] = {**TEXT, "init": "file", "init_file": str(tmp_path / "bert.safetensors")}
    return given, made.eval(), tokens


def test_texts_become_the_class_vectors_of_a_frozen_bert_which_the_weights_hold(of_a_bert):
    given, bert, tokens = of_a_bert
    method = started(**given)
    ids = torch.from_numpy(tokens.encode(ENTITIES["effusion"], 64)[0]).long()
    alone = bert(ids[None, ids != 0], torch.ones(1, int((ids != 0).sum()), dtype=torch.bool))["hidden"][-1][0, 0]
    torch.testing.assert_close(method.entity()[NAMES.index("effusion")], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.place(), class_vectors(bert, tokens, position_texts()))
    assert not any(n.startswith(("entity.", "place.", "text.")) for n, _ in method.named_parameters())
    rebuilt = build("medklip", text_vectors="bert", text=TEXT)
    rebuilt.load_state_dict(method.state_dict())
    assert torch.equal(rebuilt.entity(), method.entity())
    named = started(**given, entity_text="name")
    assert not torch.allclose(named.entity(), method.entity())
    with pytest.raises(MethodError, match="belong to other entities or texts"):
        named.load_state_dict(method.state_dict())


def test_a_bert_that_is_not_there_or_knows_no_word_is_refused(of_a_bert):
    given, bert, _ = of_a_bert
    with pytest.raises(MethodError, match="needs the BERT"):
        build("medklip", text_vectors="bert", text=TEXT).enter("pretrain")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "poumon"]
    with open(given["tokenizer"], "w") as f:
        f.write("\n".join(words))
    few = bert.state_dict() | {"embeddings.word_embeddings.weight": torch.zeros(len(words), 16)}
    save_file(few, given["text"]["init_file"])
    with pytest.raises(MethodError, match="are unknown to this vocabulary"):
        build("medklip", **given)


# ---------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave_out": ["effusions"]}, "no entity 'effusions'; did you mean 'effusion'"),
        ({"leave_out": NAMES}, "leaves no entity to learn"),
        ({"exist_weight": 0, "position_weight": 0}, "nothing to learn"),
        ({"tokenizer": "vocab.txt"}, "reads no BERT and no vocabulary"),
        ({"image": {"kind": "vit"}, "last_stage": True}, "has no such stage"),
        ({"dim": 30}, "dim: 30 is not a multiple of method.heads"),
        ({"conventions": "published", "flip": False}, r"contradicts method\.flip=False \(theirs: True\)"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(MethodError, match=message):
        get_method("medklip").Options.parse(options)


def test_published_conventions_set_their_keys():
    options = get_method("medklip").Options.parse({"conventions": "published"})
    assert (options.views, options.flip, options.averaged) == ("official", True, "rank")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocabulary": (*NAMES[:-1], "fibrosis")}, "1 entities that MedKLIP does not know: fibrosis"),
        ({"vocabulary": tuple(reversed(NAMES))}, "in another order"),
        ({"shape": (51, 74)}, r"not int8 \(51, 75\)"),
        ({"dtype": "float32"}, r"is float32 \(51, 75\), not int8"),
    ],
)
def test_other_triplets_are_refused(changed, message):
    fields = dict(schema().fields)
    fields["triplets"] = replace(fields["triplets"], **changed)
    cls = get_method("medklip")
    with pytest.raises(MethodError, match=message):
        cls(cls.Options.parse({}), Schema(fields))


def test_numbers_that_are_no_state_are_refused():
    with pytest.raises(MethodError, match="holds 2: it is 1, 0 or -1"):
        sample(started(), said(opacity=("rib", 2)))
