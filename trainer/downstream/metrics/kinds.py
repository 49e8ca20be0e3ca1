"""Kinds of answers, and which of them have what in common."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival", "segmentation", "retrieval"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PROBABILITIES = ("binary", "multiclass", "multilabel", "ordinal")
"""Their scores are probabilities."""
CODES = ("multiclass", "ordinal")
"""Their targets are numbers of classes or grades, from 0."""
