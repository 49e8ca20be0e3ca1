"""TransMIL against its equations, written out token by token, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch

from models.contract import MethodError
from models.registry import get_method

SMALL = {"dim": 8, "heads": 2, "landmarks": 4, "dropout": 0.0, "conv_kernel": 3}


def layer_norm(x, W, name):
    return (
        torch.stack([(v - v.mean()) / (v.var(unbiased=False) + 1e-5).sqrt() for v in x]) * W[f"{name}.weight"]
        + W[f"{name}.bias"]
    )


def literal_attention(x, W, name, o):
    """Nystrom attention of one bag in double precision, head by head; zeros in front and the largest norms where the package has them."""
    n, m, D = len(x), o.landmarks, o.dim // o.heads
    front = 0 if o.nystrom == "exact_short" else -n % m
    padded = torch.cat([x.new_zeros(front, o.dim), x])
    q, k, v = (padded @ W[f"{name}.qkv.weight"].T).chunk(3, 1)
    heads = [(q[:, h * D :][:, :D] / math.sqrt(D), k[:, h * D :][:, :D], v[:, h * D :][:, :D]) for h in range(o.heads)]
    means = [[torch.stack([p.mean(0) for p in split(t, m)]) for t in (q, k)] for q, k, _ in heads]
    middle = [(a @ b.T).softmax(1) for a, b in means]
    norm = [(a.sum(0).max(), a.sum(1).max()) for a in middle]
    largest = max(r for r, _ in norm), max(c for _, c in norm)
    out = []
    for (q, k, v), (ql, kl), a, own in zip(heads, means, middle, norm, strict=True):
        if o.nystrom == "exact_short" and n <= m:
            y = (q @ k.T).softmax(1) @ v
        else:
            r, c = own if o.nystrom == "exact_short" else largest
            z, eye = a.T / (r * c), torch.eye(m, dtype=a.dtype)
            for _ in range(6):
                z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
            y = (q @ kl.T).softmax(1) @ z @ ((ql @ k.T).softmax(1) @ v)
        taps = W[f"{name}.conv.weight_HK"][len(out)]
        half = len(taps) // 2
        around = torch.cat([v.new_zeros(half, D), v, v.new_zeros(half, D)])
        out.append(y + sum(t * around[i : i + len(v)] for i, t in enumerate(taps)))
    y = torch.cat(out, 1)
    y = y[:n] if o.nystrom == "library_009" else y[front:]
    return y @ W[f"{name}.out.weight"].T + W[f"{name}.out.bias"]


def split(x, m):
    """m runs of consecutive rows; the first are longer by one where it does not come out even."""
    return x.split([len(x) // m + (i < len(x) % m) for i in range(m)])


def literal_positions(x, W, side):
    """Every place of the square: itself and three weighted neighbourhoods."""
    out = []
    for place in range(side * side):
        r, c = divmod(place, side)
        total = x[place].clone()
        for i, half in enumerate((3, 2, 1)):
            total += W[f"network.ppeg.convs.{i}.bias"]
            for dr in range(-half, half + 1):
                for dc in range(-half, half + 1):
                    if 0 <= r + dr < side and 0 <= c + dc < side:
                        kernel = W[f"network.ppeg.convs.{i}.weight"][:, 0, dr + half, dc + half]
                        total += kernel * x[(r + dr) * side + c + dc]
        out.append(total)
    return torch.stack(out)


def literal(method, x):
    """The class token of one bag."""
    W = {n: p.detach().double() for n, p in method.named_parameters()}
    h = (x.double() @ W["network.project.0.weight"].T + W["network.project.0.bias"]).clamp_min(0)
    side = math.isqrt(len(h) - 1) + 1
    s = torch.cat([W["network.class_token_C"][None], h, *([h] * 4)])[: side * side + 1]
    s = s + literal_attention(layer_norm(s, W, "network.layers.0.norm"), W, "network.layers.0.attn", method.options)
    s = torch.cat([s[:1], literal_positions(s[1:], W, side)])
    s = s + literal_attention(layer_norm(s, W, "network.layers.1.norm"), W, "network.layers.1.attn", method.options)
    return layer_norm(s, W, "network.norm")[0]


@pytest.mark.parametrize("nystrom", ["exact_short", "library", "library_009"])
def test_the_class_token_is_that_of_the_equations_for_bags_of_every_length(nystrom):
    method = slides.build("transmil", nystrom=nystrom, **SMALL)
    made = slides.bags((13, 9, 4, 3, 2, 1))
    pooled = method.encode(slides.batch_of(made))["pooled_BD"]
    for x, found in zip(made, pooled, strict=True):
        torch.testing.assert_close(found.double(), literal(method, x), rtol=1e-5, atol=1e-5)


def test_conventions_choose_the_attention_and_the_option_overrides_them():
    made = slides.batch_of(slides.bags((13, 5)))
    found = {
        (c, n): slides.build("transmil", conventions=c, nystrom=n, **SMALL).encode(made)["pooled_BD"]
        for c in ("recommended", "published")
        for n in (None, "exact_short", "library")
    }
    assert torch.equal(found["recommended", None], found["published", "exact_short"])
    assert torch.equal(found["published", None], found["recommended", "library"])
    assert not torch.allclose(found["recommended", None], found["published", None], atol=1e-3)


def test_bags_of_up_to_so_many_tokens_are_exact_class_token_and_repeats_counted():
    """16 patches fill their square: 17 tokens. As with so many landmarks, beyond which nothing is approximated; longer bags as without."""
    few = {k: v for k, v in SMALL.items() if k != "landmarks"}
    made = slides.batch_of(slides.bags((16, 13)))
    exact, nystrom = (slides.build("transmil", **few, landmarks=n).encode(made)["pooled_BD"] for n in (17, 4))
    few["landmarks"] = 4
    auto = slides.build("transmil", **few, attention="auto", exact_tokens=17).encode(made)["pooled_BD"]
    torch.testing.assert_close(auto, exact)
    assert not torch.allclose(auto, nystrom, atol=1e-4)
    shorter = slides.build("transmil", **few, attention="auto", exact_tokens=16).encode(made)["pooled_BD"]
    torch.testing.assert_close(shorter, nystrom)


def test_there_is_no_exact_form_of_the_package_and_none_without_a_number():
    cls = get_method("transmil")
    for wrong in ({"exact_tokens": 300}, {"attention": "auto", "exact_tokens": 256}):
        with pytest.raises(MethodError, match=r"method\.exact_tokens"):
            cls(cls.Options(**wrong), slides.schema())
    for of_package in ({"nystrom": "library_009"}, {"conventions": "published"}):
        with pytest.raises(MethodError, match=r"set method\.nystrom=exact_short"):
            cls(cls.Options(attention="auto", exact_tokens=300, **of_package), slides.schema())


def test_repeated_patches_are_tokens_or_fill_the_square_alone():
    made = slides.batch_of(slides.bags((5,)))
    a, b = (slides.build("transmil", square=s, **SMALL).encode(made) for s in ("repeat", "fill"))
    assert not torch.allclose(a["pooled_BD"], b["pooled_BD"], atol=1e-4)
    assert a["tokens_BLD"].shape == b["tokens_BLD"].shape == (1, 5, 8)
    full = slides.batch_of(slides.bags((9,)))
    a, b = (slides.build("transmil", square=s, **SMALL).encode(full) for s in ("repeat", "fill"))
    torch.testing.assert_close(a["pooled_BD"], b["pooled_BD"])


def test_widths_that_do_not_fit_are_refused_together():
    cls = get_method("transmil")
    with pytest.raises(MethodError) as told:
        cls(cls.Options(dim=10, heads=4, conv_kernel=4), slides.schema())
    assert len(told.value.problems) == 2
    assert "method.conv_kernel: 4 is even" in str(told.value)


# ------------------------------------------------------------------------------------------------------ the published code

NAMES = {
    "network.project.0": "_fc1.0",
    "network.norm": "norm",
    "network.ppeg.convs.0": "pos_layer.proj",
    "network.ppeg.convs.1": "pos_layer.proj1",
    "network.ppeg.convs.2": "pos_layer.proj2",
    "network.layers.0.norm": "layer1.norm",
    "network.layers.1.norm": "layer2.norm",
    "network.layers.0.attn.out": "layer1.attn.to_out.0",
    "network.layers.1.attn.out": "layer2.attn.to_out.0",
}


def published(nystrom: str | None, gold: slides.Golden):
    options = {"conventions": "published", "nystrom": nystrom, "dropout": 0.0}
    model = slides.tuned(slides.build("transmil", 1024, **options), slides.kinds(2))
    names = {f"encoder.{a}.{w}": f"{b}.{w}" for a, b in NAMES.items() for w in ("weight", "bias")}
    names |= {f"head.out.{w}": f"_fc2.{w}" for w in ("weight", "bias")}
    for i in (0, 1):
        names[f"encoder.network.layers.{i}.attn.qkv.weight"] = f"layer{i + 1}.attn.to_qkv.weight"
        names[f"encoder.network.layers.{i}.attn.conv.weight_HK"] = f"layer{i + 1}.attn.res_conv.weight"
    names["encoder.network.class_token_C"] = "cls_token"
    slides.load(model, gold.weights("transmil"), names)
    return model, names


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    gold = slides.golden(real_data, "transmil")
    model, names = published(None, gold)
    for N in (300, 254, 255, 256, 511, 100, 9, 5, 2, 1):
        key = f"n{N}"
        with torch.no_grad():
            logits = model.logits(slides.batch_of([gold.patches(N, 1024)]))[0]
        gold.equal(logits, f"{key}/logits")
        gold.equal(logits.softmax(1), f"{key}/prob")
        for y in (0, 1):
            gold.equal(torch.nn.functional.cross_entropy(logits, torch.tensor([y])), f"{key}/y{y}/loss")
    # What the model itself makes of its logits, which takes a pass for each.
    with torch.no_grad():
        gold.equal(model.scores(slides.batch_of([gold.patches(300, 1024)]))[0], "n300/prob")
    for N in (300, 255, 5):
        for y in (0, 1):
            terms, grads = slides.losses(model, slides.batch_of([gold.patches(N, 1024)], target=[y]))
            gold.equal(terms["total"], f"n{N}/y{y}/loss")
            stored = {ours: k for ours, n in names.items() if (k := f"n{N}/y{y}/grad/{n}") in gold.numbers}
            assert len(stored) == 10, "those that the pack holds"
            for ours, key in stored.items():
                gold.equal(grads[ours].norm(), key, 1e-4)
    # Together, each bag has what the published code gives it alone (there, batch mates change each other).
    second = torch.from_numpy(gold.rule.normal("input.patches.second", (300, 1024), 5.0))
    made = [gold.patches(300, 1024), second, gold.patches(9, 1024)]
    logits = model.logits(slides.batch_of(made, float("nan")))[0]
    gold.equal(logits[:2], "batch2/logits_alone", 2e-5)
    gold.equal(logits[2], "n9/logits", 2e-5)


@pytest.mark.real
def test_the_pinned_package_gives_back_other_rows(real_data: Path):
    gold = slides.golden(real_data, "transmil")
    model, _ = published("library_009", gold)
    found = [k for k in gold.numbers if "nystrom0.0.9" in k]
    assert found
    for key in found:
        N = int(key.split("/")[-2][1:])
        gold.equal(model.logits(slides.batch_of([gold.patches(N, 1024)]))[0], key)
