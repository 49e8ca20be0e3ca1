"""A file of weights is a function of the weights."""

from __future__ import annotations

import torch
from safetensors.torch import load

from models.init.weights import weights_bytes


def test_the_same_weights_are_the_same_bytes() -> None:
    """The library's own order of metadata is one of chance: equal in all of 30 files once in a hundred million."""
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(1, dtype=torch.bfloat16)}
    metadata = {"format": "pt", "grid": "7x28", "grid.encoder": "4x16", "grid.é": "1x1"}
    files = {weights_bytes(tensors, dict(sorted(metadata.items(), reverse=k % 2 == 1))) for k in range(30)}
    assert len(files) == 1
    data = files.pop()
    read = load(data)
    assert torch.equal(read["b"], tensors["b"])
    assert torch.equal(read["a"], tensors["a"])
    assert int.from_bytes(data[:8], "little") % 8 == 0, "tensors begin at a multiple of eight bytes"


def test_metadata_can_be_read(tmp_path) -> None:
    from safetensors import safe_open

    for metadata in ({"format": "pt", "grid": "7x28"}, {"grid": "7x28"}):
        (tmp_path / "w.safetensors").write_bytes(weights_bytes({"a": torch.ones(2)}, metadata))
        with safe_open(tmp_path / "w.safetensors", "pt") as file:
            assert file.metadata() == metadata
    (tmp_path / "w.safetensors").write_bytes(weights_bytes({"a": torch.ones(2)}, {}))
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert not file.metadata()
