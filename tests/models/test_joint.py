"""Every method that claims a joint space of images and texts compares in it what its training compares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records

from models.contract.joint import JointSpace
from models.registry import get_method, joint_names

JOINT = joint_names()
every_joint = pytest.mark.parametrize("name", JOINT)
WORDS = ["small", "large", "round", "irregular", "opacity", "left", "upper", "right", "lower", "lobe", "effusion"]
N = len(WORDS)
REPORTS = ["Small round opacity in the left upper lobe. No effusion.", "Large irregular opacity.", "No effusion."]


def deployed(name: str):
    method = build(name)
    method.enter("")
    assert isinstance(method, JointSpace)
    return method.eval()


def test_some_methods_have_one_and_some_have_none():
    assert len(JOINT) >= 5
    assert not issubclass(get_method("simclr"), JointSpace)
    assert not issubclass(get_method("mrm_record"), JointSpace), "it reads reports, and compares nothing with them"


@every_joint
@torch.no_grad()
def test_vectors_are_of_one_width_and_of_a_text_or_an_image_alone(name):
    method = deployed(name)
    images = batch(method, records(4))
    texts = method.collate([method.read_text(t).sample for t in REPORTS])
    image_BC, text_BC = method.embed_images(images), method.embed_texts(texts)
    assert image_BC.shape == (4, text_BC.shape[1])
    assert len({tuple(v) for v in text_BC.tolist()}) == len(REPORTS)
    torch.testing.assert_close(method.embed_images(batch(method, records(1))), image_BC[:1], rtol=1e-4, atol=1e-5)
    alone = method.collate([method.read_text(REPORTS[0]).sample])
    torch.testing.assert_close(method.embed_texts(alone), text_BC[:1], rtol=1e-4, atol=1e-5)
    assert method.similarity_scale() > 0
    assert not method.joint_problem()


@every_joint
@torch.no_grad()
def test_it_is_the_space_of_training(name):
    """Whose text is nearest to each image, and whose image to each text, as training counts it on the same batch."""
    method = build(name, same_patient="negative", same_text="negative")
    method.enter("pretrain")
    method.eval()
    made = records(N, missing={i: ["image_2", "image_3"] for i in range(N)})
    for i, r in enumerate(made):
        r.fields["report"] = " ".join(WORDS[i:] + WORDS[:i])  # equal texts tie, and rounding would tell who is first
    data = batch(method, made)
    told = method(data).diagnostics
    cos_BB = F.normalize(method.embed_images(data).double()) @ F.normalize(method.embed_texts(data).double()).T
    own = torch.arange(N)
    assert float((cos_BB.argmax(1) == own).double().mean()) == pytest.approx(float(told["image_to_text"]))
    assert float((cos_BB.argmax(0) == own).double().mean()) == pytest.approx(float(told["text_to_image"]))


@every_joint
def test_what_is_read_of_reports_and_prompts(name):
    method = deployed(name)
    word = method.read_text("opacity", prompt=True)
    assert word.tokens > 0, "a prompt of one word counts"
    assert word.sample.present["report"]
    assert word.unknown == 0
    assert method.read_text("?!").tokens == method.read_text("?!").unknown, "signs alone are no words that it knows"
    long = method.read_text("small round opacity " * 200, prompt=True)
    assert long.tokens > long.room == method.options.report_length - method.ends
    assert method.read_text("no effusion", prompt=True).key == method.read_text("No effusion", prompt=True).key
    assert method.read_text("no effusion", prompt=True).key != word.key


@pytest.mark.parametrize(("name", "weight"), [("gloria", "global_weight"), ("refers", "contrast_weight")])
def test_a_model_that_never_compared_says_so(name, weight):
    assert f"method.{weight}: 0" in build(name, **{weight: 0.0}).joint_problem()
