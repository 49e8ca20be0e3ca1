"""Genotypes that count other alleles of the same SNPs: not trained on together, nor fine-tuned on, and the allele is named."""

from __future__ import annotations

import pytest

from models.contract import Field, Schema
from trainer.data import merged_schema
from trainer.downstream.init import Init, check_fields
from trainer.errors import UserError

NAMES = ("rs0_A(/G)", "rs1_C(/T)", "rs2_A(/G)")
OTHER = ("rs0_G(/A)", "rs1_C(/T)", "rs2_G(/A)")


def schema(source: str, names: tuple[str, ...]) -> Schema:
    return Schema({"snp": Field("snp", "array", "int8", (len(names),), names)}, {}, source=source)


def test_a_mix_is_refused_by_allele() -> None:
    with pytest.raises(UserError) as e:
        merged_schema([schema("a", NAMES), schema("b", OTHER)])
    text = str(e.value)
    assert "field 'snp' differs between a and b: 2 of 3 SNPs count another allele (rs0_A(/G) and rs0_G(/A), " in text
    assert "--count-allele sorted" in text
    assert merged_schema([schema("a", NAMES), schema("b", NAMES)]).fields["snp"].vocabulary == NAMES


def test_a_fine_tune_is_refused_by_allele() -> None:
    source = Init("mrm_relation", {}, schema("a", NAMES), None, False, None)
    with pytest.raises(
        UserError, match=r"'snp' of b is not what the encoder was trained on: 2 of 3 SNPs count another allele"
    ):
        check_fields(source, ("snp",), schema("b", OTHER))
    with pytest.raises(UserError, match="other features, or these in another order"):
        check_fields(source, ("snp",), schema("b", NAMES[::-1]))
