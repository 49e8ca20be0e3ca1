"""mc-BEiT against a few literal lines: cells and their codes, the mixed target, what it costs; and the published numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, schema
from views_packs import Pack

from models.contract import MethodError
from models.contract.assets import asset_digests
from models.init.weights import weights_bytes
from models.layers.code_book import KIND, CellTokenizer, CodeBook
from models.layers.patches import places_of
from models.losses.codes import mixed_codes
from models.methods.masked.mc_beit import DEMO
from models.registry import get_method
from models.transforms.cells import cells_of, choices_of, temperature_of


def entered(**options):
    method = build("mc_beit", **options)
    method.enter("pretrain")
    return method


def shaken(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def cells(n: int = 2000, cell: int = 2, kinds: int = 5) -> np.ndarray:
    """Of some kinds, each with a little noise."""
    rng = np.random.default_rng(0)
    centres = np.random.default_rng(1).uniform(-1, 1, (kinds, 3 * cell**2))
    return (centres[rng.integers(0, kinds, n)] + 0.02 * rng.normal(size=(n, 3 * cell**2))).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- the tokenizer


def test_cells_are_squares_of_the_image_row_by_row():
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    made = cells_of(torch.from_numpy(image), (3, 3), 4)
    want = image[1, 4:8, 8:12].reshape(-1) / 127.5 - 1  # second row, third column; (row, column, colour)
    torch.testing.assert_close(made[1, 5].double(), torch.from_numpy(want), rtol=0, atol=1e-6)
    halved = cells_of(torch.from_numpy(image), (3, 3), 2)
    want = image[1, 4:8, 8:12].reshape(2, 2, 2, 2, 3).mean((1, 3)).reshape(-1) / 127.5 - 1
    torch.testing.assert_close(halved[1, 5].double(), torch.from_numpy(want), rtol=0, atol=1e-6)


def test_logits_are_distances_in_components_and_bits_survive_bfloat16():
    book, _ = CodeBook.fit(cells(), 2, 5, 4, 2.0, seed=0)
    image = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    tokenizer = CellTokenizer(book, (3, 3))
    x = cells_of(image, (3, 3), 2).numpy().astype(float)
    gap = ((x - book.mean_P) @ book.axes_QP.T)[:, :, None] - book.centres_VQ
    want = torch.from_numpy(-(gap**2).sum(-1))
    torch.testing.assert_close(tokenizer(image).double(), want, rtol=1e-4, atol=1e-4)
    assert torch.equal(tokenizer.bfloat16()(image), CellTokenizer(book, (3, 3))(image))


def test_a_fit_finds_the_kinds_and_leaves_as_many_codes_open_as_asked():
    made = cells(kinds=8)
    book, said = CodeBook.fit(made, 2, 8, 6, 3.0, seed=0)
    assert said["used"] == 8
    assert said["perplexity"] == pytest.approx(8, rel=0.1)
    assert said["mse"] < 0.05 * said["variance"]
    assert said["choices"] == pytest.approx(3, rel=1e-3)
    assert len(book.logits(torch.from_numpy(made)).argmax(1).unique()) == 8
    again, _ = CodeBook.fit(made, 2, 8, 6, 3.0, seed=0)
    np.testing.assert_array_equal(again.centres_VQ, book.centres_VQ)


def test_effective_choices():
    even = torch.zeros(3, 7)
    assert choices_of(even, 1.0) == pytest.approx(7)
    logits = -torch.rand(200, 32, generator=torch.Generator().manual_seed(0)) * 40
    for choices in (1.5, 8, 31):
        p = (logits.double() / temperature_of(logits, choices)).softmax(1)
        assert math.exp(-(p * p.log()).sum(1).mean()) == pytest.approx(choices, rel=1e-3)


def test_a_file_gives_the_same_code_book_back_and_a_run_knows_it_by_its_hash(tmp_path):
    book, _ = CodeBook.fit(cells(cell=6), 6, 5, 4, 2.0, seed=0)
    book.write(tmp_path / "codes.safetensors")
    again = CodeBook.read(tmp_path / "codes.safetensors")
    assert (again.cell, again.temperature) == (6, book.temperature)
    np.testing.assert_array_equal(again.centres_VQ, book.centres_VQ)
    method = entered(codes="file", tokenizer=str(tmp_path / "codes.safetensors"))
    assert method.head.out_features == 5
    assert method.temperature == book.temperature
    assert list(asset_digests(type(method.options), method.options.model_dump())) == ["tokenizer"]
    assert entered(temperature=4.0).temperature == 4.0


# ------------------------------------------------------------------------------------------------------------ the equation


def literal(method, data) -> tuple[float, float, float]:
    """The loss, the cost of the mean target and the targets' entropy, one place at a time."""
    o, cost, targets = method.options, [], []
    p = (method.codes(data["views"][:, 0]) / method.temperature).softmax(-1)
    with torch.no_grad():
        x = method.pixels(data["views"][:, 0])
        f = method.image(method.mask(method.image.patch_embed(x), data["noise"]), unplaced=True)[:, 1:]
        said = (f @ method.head.weight.T + method.head.bias).log_softmax(-1)
    for b in range(len(f)):
        if not data.weight_B[b] or not data.present["image"][b]:
            continue
        unit = f[b] / f[b].norm(dim=1, keepdim=True)
        for i in data["noise"][b].nonzero()[:, 0].tolist():
            w = ((unit @ unit[i]) / o.similarity_temperature).exp()
            y = o.omega * (w[:, None] * p[b]).sum(0) / w.sum() + (1 - o.omega) * p[b, i]
            targets.append(y)
            cost.append(-(y * said[b, i]).sum().item())
    y = torch.stack(targets)
    mean = y.mean(0)
    return (
        float(np.mean(cost)),
        -(mean * mean.clamp_min(1e-30).log()).sum().item(),
        -(y * y.clamp_min(1e-30).log()).sum(1).mean().item(),
    )


def test_the_loss_is_the_cost_of_mixed_codes_at_hidden_places_of_counted_images():
    method = shaken(entered(omega=0.4, similarity_temperature=0.3))
    data = batch(method, records(5, missing={1: ["image"]}))
    data.weight_B[3] = 0
    out = method(data)
    loss, baseline, floor = literal(method, data)
    assert out.losses["image"].item() == pytest.approx(loss, rel=1e-5)
    assert out.diagnostics["image_baseline"].item() == pytest.approx(baseline, rel=1e-5)
    assert out.diagnostics["image_floor"].item() == pytest.approx(floor, rel=1e-5)


def test_at_the_start_a_code_costs_the_logarithm_of_their_number():
    method = entered()
    assert method.chance(8) == {"image": math.log(64)}
    loss = method(batch(method, records(8))).losses["image"].item()
    assert loss == pytest.approx(math.log(64), rel=0.05)


def test_single_patches_are_hidden_and_not_seen():
    method = shaken(entered())
    data = batch(method, records(2))
    assert data["noise"].sum(1).tolist() == [48, 48]  # 75 % of 64
    x = method.pixels(data["views"][:, 0])
    tokens = method._seen(x, data["noise"])
    row, column = divmod(int(places_of(data["noise"])[0, 0]), 8)
    x[0, :, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] += 3
    torch.testing.assert_close(method._seen(x, data["noise"]), tokens)


def test_likenesses_teach_the_encoder_unless_they_are_detached():
    grads = []
    for stopped in (False, True):
        method = shaken(entered(omega=0.9, similarity_temperature=0.1, detach_similarity=stopped))
        with torch.no_grad():  # what the tokens are called teaches nothing
            method.head.weight.zero_()
        method(batch(method, records(3))).total.backward()
        grads.append(float(method.image.blocks[0].mlp.fc1.weight.grad.abs().sum()))
    assert grads[0] > 1e-3
    assert grads[1] == 0


def test_only_the_encoder_and_the_head_are_trained_and_it_is_deployed_on_whole_images():
    method = entered()
    assert not [n for n, _ in method.named_parameters() if n.startswith("codes.")]
    assert {n for n in method.state_dict() if n.startswith("codes.")}, "saved with a run"
    method.enter("")
    assert not [n for n, p in method.named_parameters() if p.requires_grad != n.startswith("image.")]
    data = batch(method, records(2))
    tokens = method.encode(data)["tokens_BLD"]
    torch.testing.assert_close(method.encode(data)["pooled_BD"], tokens[:, 1:].mean(1))


# --------------------------------------------------------------------------------------------------------------- bad input


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / "codes.safetensors"
    arrays = {"mean_P": torch.zeros(12), "axes_QP": torch.eye(2, 12), "centres_VQ": torch.rand(4, 2)}
    words = {"kind": KIND, "cell": "2", "temperature": "1.0"}
    if kind == "text":
        path.write_text("no code book")
        return path
    if kind == "lacks":
        del arrays["centres_VQ"]
    elif kind == "other":
        words["kind"] = "weights"
    elif kind == "shapes":
        words["cell"] = "3"
    elif kind == "nan":
        arrays["centres_VQ"][1, 1] = float("nan")
    elif kind == "cold":
        words["temperature"] = "0.0"
    path.write_bytes(weights_bytes(arrays, words))
    return path


@pytest.mark.parametrize("kind", ["text", "lacks", "other", "shapes", "nan", "cold"])
def test_a_file_that_is_no_code_book_is_refused(tmp_path, kind):
    path = bad_file(tmp_path, kind)
    with pytest.raises(MethodError, match=r"codes\.safetensors: no code book.*medpair tokenizer"):
        CodeBook.read(path)


def test_a_tokenizer_must_be_given_and_fit(tmp_path):
    cls = get_method("mc_beit")
    with pytest.raises(MethodError, match=r"needs a code book of your images; make one \(medpair tokenizer"):
        cls(cls.Options(), schema())
    with pytest.raises(MethodError, match=r"method\.tokenizer.*no such file"):
        cls.Options.parse({"tokenizer": "nowhere.safetensors"})
    with pytest.raises(MethodError, match=r"asks for the demo cohort's; leave one of them out"):
        cls.Options.parse({"codes": "demo", "tokenizer": str(DEMO)})
    with pytest.raises(MethodError, match=r"cells of 6 pixels are larger than method\.image\.patch \(4\)"):
        build("mc_beit", image={"patch": 4}, mask_block=4)


@pytest.mark.parametrize(
    ("codes", "components", "choices", "said"),
    [
        (1, 4, 2.0, "at least 2 codes"),
        (8, 13, 2.0, "1 to 12 components"),
        (8, 4, 8.0, "more than 1 choice but fewer than codes"),
        (8, 4, 1.0, "more than 1 choice but fewer than codes"),
        (2000, 4, 2.0, "different cells of 2000 for 2000 codes"),
    ],
)
def test_numbers_that_make_no_code_book_are_told(codes, components, choices, said):
    with pytest.raises(MethodError, match=said):
        CodeBook.fit(cells(), 2, codes, components, choices, seed=0)


def test_images_without_anything_on_them_make_no_code_book():
    with pytest.raises(MethodError, match="1 different cells of 500 for 8 codes"):
        CodeBook.fit(np.zeros((500, 12), np.float32), 2, 8, 4, 2.0, seed=0)


# ---------------------------------------------------------------------------------------------------- the published code


@pytest.mark.real
@pytest.mark.parametrize("omega", [0.0, 0.2, 0.5])
def test_published_code_on_the_same_weights(real_data: Path, omega: float):
    pack = Pack(real_data, "mc_beit")
    method, weights = published(omega=omega), pack.weights()
    load(method, weights)
    hidden, logits = (
        torch.from_numpy(pack.numbers["mask"]),
        torch.from_numpy(pack.numbers["token_logits"]).flatten(2).mT,
    )
    out = method.loss(pack.image("input.image", (2, 3, 64, 64)), logits, hidden, torch.ones(2))
    pack.equal(out.losses["image"], f"loss_omega{omega}")
    tokens = method._seen(pack.image("input.image", (2, 3, 64, 64)), hidden)[:, 1:]
    pack.equal(tokens, "features")
    pack.equal(method.head(tokens), "outputs")
    if omega == 0.2:
        every = torch.arange(16).expand(2, -1)
        pack.equal(mixed_codes(logits, tokens, every, omega, 4.0), "soft_target_omega02")
    check_gradients(pack, method, out, f"omega{omega}")


@pytest.mark.real
def test_detached_likenesses_on_the_same_weights(real_data: Path):
    pack = Pack(real_data, "mc_beit")
    method = published(detach_similarity=True)
    load(method, pack.weights())
    hidden, logits = (
        torch.from_numpy(pack.numbers["mask"]),
        torch.from_numpy(pack.numbers["token_logits"]).flatten(2).mT,
    )
    out = method.loss(pack.image("input.image", (2, 3, 64, 64)), logits, hidden, torch.ones(2))
    pack.equal(out.losses["image"], "loss_stopgrad_omega0.2")
    check_gradients(pack, method, out, "stopgrad_omega0.2")


def published(**options):
    image = {"image_size": 64, "patch": 16, "dim": 64, "depth": 2, "heads": 4, "mlp_ratio": 4.0}
    method = entered(image=image, mask_block=16, temperature=4.0, **options)
    method.head = torch.nn.Linear(64, 24)
    return method


def load(method, weights: dict[str, torch.Tensor]) -> None:
    """Every published weight has its place; keys have no bias there."""
    left = dict(weights)
    state = {"mask.mask_token": left.pop("mask_token")}
    state |= {f"head.{n}": left.pop(f"lm_head.{n}") for n in ("weight", "bias")}
    for i in range(2):
        q, v = (left.pop(f"blocks.{i}.attn.{n}_bias") for n in "qv")
        left[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    state |= {f"image.{ours(n)}": w for n, w in left.items()}
    told = method.load_state_dict(state, strict=False)
    assert not told.unexpected_keys
    assert not [n for n in told.missing_keys if not n.startswith("codes.") and not n.endswith("pos_embed")]


def ours(published_name: str) -> str:
    return published_name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")


def check_gradients(pack: Pack, method, out, case: str) -> None:
    out.total.backward()
    places = {"mask_token": "mask.mask_token", "lm_head.weight": "head.weight"}
    own, checked = dict(method.named_parameters()), 0
    for key in pack.numbers.files:
        name, _, of = key.removeprefix("grad:").partition(":")
        if key.startswith("grad:") and of == case:
            pack.equal(own[places.get(name, f"image.{ours(name)}")].grad.norm(), key)
            checked += 1
    assert checked >= 4
