"""The text encoder: BERT's equations literally, files under its published names, and what is refused."""

from __future__ import annotations

import math

import pytest
import reports
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from models.contract import MethodError
from models.encoders.report_bert import BertOptions, ReportBert

SIZES = {"dim": 16, "depth": 3, "heads": 4, "inner": 24}


def bert(seed: int = 0, vocabulary: int = 11, **options) -> ReportBert:
    torch.manual_seed(seed)
    made = BertOptions.parse({**SIZES, "dropout": 0.0, **options}).build(vocabulary, 8)
    with torch.no_grad():  # so that norms and biases count
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return made.eval()


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 5, 6, 7, 10, 3, 0, 0], [2, 4, 9, 3, 0, 0, 0, 0], [2, 8, 8, 5, 6, 7, 4, 3]])
    return ids, ids != 0


def norm(x, W, name):
    mean, var = x.mean(), x.var(unbiased=False)
    return (x - mean) / (var + 1e-12).sqrt() * W[f"{name}.weight"] + W[f"{name}.bias"]


def dense(x, W, name):
    return W[f"{name}.weight"] @ x + W[f"{name}.bias"]


def attended(x, W, at, heads):
    """What each token gathers, head beside head, and by which shares [H, L, L]."""
    E = len(x[0]) // heads
    q, k, v = ([dense(t, W, f"{at}.{p}") for t in x] for p in ("query", "key", "value"))
    parts, shares = [], []
    for s in (slice(h * E, (h + 1) * E) for h in range(heads)):
        share = [torch.stack([a[s] @ b[s] / math.sqrt(E) for b in k]).softmax(0) for a in q]
        parts.append([sum(p * b[s] for p, b in zip(row, v, strict=True)) for row in share])
        shares.append(torch.stack(share))
    return [torch.cat(heads_of_token) for heads_of_token in zip(*parts, strict=True)], torch.stack(shares)


def literal(W, ids, heads, place=None):
    """Vectors of one text without padding, layer by layer, and the last layer's weights [H, L, L]."""
    word, position, segment = (W[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
    x = [word[t] + position[i if place is None else place] + segment[0] for i, t in enumerate(ids)]
    x, weights = [norm(t, W, "embeddings.LayerNorm") for t in x], None
    layers = [torch.stack(x)]
    for at in (f"encoder.layer.{n}" for n in range(SIZES["depth"])):
        seen, weights = attended(x, W, f"{at}.attention.self", heads)
        out = f"{at}.attention.output"
        x = [norm(t + dense(o, W, f"{out}.dense"), W, f"{out}.LayerNorm") for t, o in zip(x, seen, strict=True)]
        inner = [dense(t, W, f"{at}.intermediate.dense") for t in x]
        gelu = [t * 0.5 * (1 + torch.erf(t / math.sqrt(2))) for t in inner]
        out = f"{at}.output"
        x = [norm(t + dense(o, W, f"{out}.dense"), W, f"{out}.LayerNorm") for t, o in zip(x, gelu, strict=True)]
        layers.append(torch.stack(x))
    return layers, weights


@pytest.mark.parametrize("positions", ["learned", "none"])
@pytest.mark.parametrize("asked", [False, True])
def test_hidden_states_and_attention_are_berts(positions, asked):
    model = bert(positions=positions)
    ids, real = texts()
    out = model(ids, real, last=4, weights=asked)
    W = {n: p.detach().double() for n, p in model.named_parameters()}
    for b, text in enumerate(ids):
        n = int(real[b].sum())
        layers, weights = literal(W, text[:n], 4, 0 if positions == "none" else None)
        for found, wanted in zip(out["hidden"], layers, strict=True):
            torch.testing.assert_close(found[b, :n].double(), wanted, rtol=1e-4, atol=1e-5)
        if asked:
            torch.testing.assert_close(out["weights"][b, :, :n, :n].double(), weights, rtol=1e-4, atol=1e-5)
            assert not out["weights"][b, :, :n, n:].any()
    assert (out["weights"] is None) == (not asked)
    assert torch.equal(model(ids, real)["hidden"][0], model(ids, real, last=3)["hidden"][-1])
    assert len(model(ids, real, last=2)["hidden"]) == 2


def test_what_stands_in_padding_changes_nothing():
    model, (ids, real) = bert(), texts()
    other = torch.where(real, ids, 7)
    for asked in (False, True):
        a, b = (model(x, real, weights=asked)["hidden"][0] for x in (ids, other))
        torch.testing.assert_close(a[real], b[real])


def test_without_positions_a_text_is_a_bag_of_words():
    ids = torch.tensor([[2, 5, 6, 7, 3, 0, 0, 0], [2, 7, 5, 6, 3, 0, 0, 0]])
    for positions, same in (("none", True), ("learned", False)):
        out = bert(positions=positions)(ids, ids != 0)["hidden"][0][:, 0]
        assert torch.allclose(out[0], out[1], atol=1e-5) == same


def test_pooler_is_tanh_of_the_class_token():
    torch.manual_seed(0)
    model = BertOptions.parse({**SIZES, "dropout": 0.0}).build(11, 8, pooler=True)
    ids, real = texts()
    out = model(ids, real)
    wanted = torch.tanh(F.linear(out["hidden"][0][:, 0], model.pooler.dense.weight, model.pooler.dense.bias))
    torch.testing.assert_close(out["pooled"], wanted)
    assert bert()(ids, real)["pooled"] is None


def test_names_are_those_of_the_library():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=8, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
    )  # fmt: skip
    theirs, ours = transformers.BertModel(config).eval(), bert()
    found = {n: v for n, v in theirs.state_dict().items() if not n.startswith("pooler.") and v.is_floating_point()}
    ours.load_state_dict(found, strict=True)
    ids, real = texts()
    wanted = theirs(ids, real.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, real)["hidden"][0][real], wanted[real], rtol=1e-5, atol=1e-6)


def saved(path, **extra):
    """A file as language models are saved: a prefix, heads, a counter, a pooler."""
    model = bert(seed=3)
    state = {f"bert.{n}": v for n, v in model.state_dict().items()}
    beside = {
        "bert.embeddings.position_ids": torch.arange(8)[None],
        "bert.pooler.dense.weight": torch.zeros(16, 16),
        "bert.pooler.dense.bias": torch.zeros(16),
        "cls.predictions.bias": torch.zeros(11),
        "cls_projection_head.dense_to_hidden.weight": torch.zeros(4, 16),
    }
    torch.save({**state, **beside, **extra}, path)
    return model, tuple(beside)


def test_files_of_language_models_load_by_name(tmp_path):
    model, beside = saved(tmp_path / "pytorch_model.bin")
    ours = bert(seed=1)
    loaded = ours.load_file(tmp_path / "pytorch_model.bin")
    assert loaded.skipped == beside
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), model.state_dict().values(), strict=True))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with_file = bert(init="file", init_file=str(tmp_path / "model.safetensors"), seed=2)
    assert with_file.state_dict().keys() == model.state_dict().keys()
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma"): v for n, v in model.state_dict().items()}
    torch.save(old, tmp_path / "old.bin")
    assert torch.equal(_first(bert(seed=1), tmp_path / "old.bin"), model.embeddings.LayerNorm.weight)


def _first(model: ReportBert, path) -> torch.Tensor:
    model.load_file(path)
    return model.embeddings.LayerNorm.weight


def test_the_weights_of_a_run_load_by_its_text_encoder(tmp_path):
    theirs = bert(seed=1)
    state = {f"text.{n}": v for n, v in theirs.state_dict().items()}
    state |= {"image.pos_embed": torch.zeros(3), "text_head.0.weight": torch.zeros(2, 2)}
    state["tokenizer_sha256"] = torch.tensor(list(bytes.fromhex("ab" * 32)), dtype=torch.uint8)
    save_file(state, tmp_path / "model.safetensors")
    ours = bert()
    loaded = ours.load_file(tmp_path / "model.safetensors", "ab" * 32)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert set(loaded.skipped) == {"image.pos_embed", "text_head.0.weight", "tokenizer_sha256"}
    with pytest.raises(MethodError, match="belongs to the vocabulary abababababab"):
        bert().load_file(tmp_path / "model.safetensors", "cd" * 32)


def test_a_file_that_does_not_match_is_refused_by_name(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    saved(path, **{"bert.encoder.layer.1.crossattention.self.query.weight": torch.zeros(16, 16)})
    with pytest.raises(MethodError, match=r"that the model does not: encoder\.layer\.1\.crossattention"):
        bert().load_file(path)
    saved(path)
    with pytest.raises(
        MethodError, match=r"has 11 word vectors, the vocabulary of these reports 12.*method\.tokenizer"
    ):
        bert(vocabulary=12).load_file(path)
    with pytest.raises(MethodError, match=r"text\.places=8 method\.text\.depth=3 method\.text\.inner=24"):
        bert(places=9, depth=2, inner=20).load_file(path)
    torch.save(bert().state_dict(), path)
    pooled = BertOptions.parse(SIZES).build(11, 8, pooler=True)
    with pytest.raises(MethodError, match=r"(?s)lacks 2 of .*pooler\.dense\.weight.*method\.text_pooler=new"):
        pooled.load_file(path)


def test_a_file_without_a_pooler_leaves_a_new_one_as_it_began(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(bert().state_dict(), path)
    began = BertOptions.parse(SIZES).build(11, 8, pooler=True)
    first = {n: p.clone() for n, p in began.named_parameters()}
    began.load_file(path, new_pooler=True)
    same = {n for n, p in began.named_parameters() if torch.equal(p, first[n])}
    assert {n for n in same if n.startswith("pooler.")} == {"pooler.dense.weight", "pooler.dense.bias"}
    theirs = torch.load(path)
    assert all(torch.equal(p, theirs[n]) for n, p in began.named_parameters() if not n.startswith("pooler."))


def test_a_file_that_says_another_vocabulary_is_refused(tmp_path):
    path, sha256 = tmp_path / "run.pth", "ab" * 32
    saved(path, tokenizer_sha256=torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))
    bert().load_file(path, sha256)
    with pytest.raises(MethodError, match=r"belongs to the vocabulary abababababab, these reports are cut by cdcdcd"):
        bert().load_file(path, "cd" * 32)


def test_options_that_do_not_go_together_are_told_at_once():
    with pytest.raises(MethodError) as raised:
        BertOptions.parse({"dim": 10, "heads": 4, "depth": 2, "freeze_layers": 3, "init": "file"}, "method.text")
    assert [p.partition(":")[0] for p in raised.value.problems[:2]] == ["method.text.dim", "method.text.freeze_layers"]
    assert "give both or neither" in raised.value.problems[2]
    with pytest.raises(MethodError, match=r"text\.places: 5 positions for texts of 8 tokens"):
        bert(places=5)


def test_the_bottom_is_the_embeddings_and_the_first_layers():
    model = bert()
    held = {id(p) for p in model.bottom(2)}
    names = {n for n, p in model.named_parameters() if id(p) in held}
    assert names == {n for n, _ in model.named_parameters() if not n.startswith("encoder.layer.2.")}


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data):
    """Word vectors of GLoRIA's pack (five layers) and of MGCA's (every token at the first place)."""
    gold = reports.pack(real_data, "gloria")
    ids = gold["input.caption_ids"]
    model = ReportBert(43, places=24, dim=32, depth=5, heads=4, inner=64).eval()
    reports.load(model, gold.weights("text_encoder"), lambda n: f"model.{n}")
    summed = sum(model(ids, ids != 0, last=4)["hidden"])
    torch.testing.assert_close(summed[3, 0], gold["text.word_embeddings"][3, :, 0], rtol=1e-5, atol=1e-5)
    gold = reports.pack(real_data, "mgca")
    model = ReportBert(43, places=24, dim=32, depth=2, heads=4, inner=64, placed=False).eval()
    state = gold.weights("vit_base")
    state["embeddings.token_type_embeddings.weight"] = torch.zeros(2, 32)
    reports.load(model, state, lambda n: n if "token_type" in n else f"text_encoder_q.model.{n}")
    out = model(ids, ids != 0, weights=True)
    gold.equal(out["hidden"][0][:, 0], "eval.text.report_feature")
    gold.equal(out["weights"].mean(1)[:, 0], "eval.text.cls_attention_raw")
