"""What systems share that read vectors of genetics beside an image: which fields they may be, and what of their values is known.

Shape letters: B samples, F features of a field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Field, Method, MethodError, Options, Record, Schema
from models.transforms.expression import ExpressionOptions, standardised

# Allele counts and flags are centred on the training mean but keep their scale; everything else becomes a z-score.
COUNTS = ("snp", "burden", "mutation")
SNP_CODES = (-1, 0, 1, 2)


class GeneticOptions(Protocol):
    """What `ReadsGenetics` asks of a system's options."""

    @property
    def genetics(self) -> tuple[str, ...]: ...
    @property
    def genes(self) -> ExpressionOptions: ...


def genetic_problems(method: str, o: GeneticOptions, schema: Schema) -> Iterable[str]:
    """Why a data set has not the fields that `method.genetics` names, as vectors, and the image; or they cannot be clipped."""
    genetics = o.genetics
    vectors = sorted(n for n, field in schema.fields.items() if _is_vector(field))
    fix = (
        f"set method.genetics={','.join(vectors)}" if vectors else "pack genetics beside the images, a vector a sample"
    )
    if "image" not in schema.fields:
        yield schema.lacks("image", method)
    for name in genetics:
        field = schema.fields.get(name)
        if field is None:
            yield f"{schema.source} has no field '{name}' (method.genetics); {fix}"
        elif not _is_vector(field):
            yield f"field '{name}' of {schema.source} is no vector of one width (shape {field.shape}); {fix}"
    if len(set(genetics)) < len(genetics):
        yield f"method.genetics: {list(genetics)} names a field twice; name each once"
    yield from o.genes.clip_problems("method.genes", (n for n in genetics if n not in COUNTS), schema)


def _is_vector(field: Field) -> bool:
    return field.kind == "array" and field.shape is not None and len(field.shape) == 1 and field.shape[0] is not None


class ReadsGenetics(Method):
    """Base of systems whose options have `genetics`, names of fields, and `genes`, how their vectors are given to an encoder."""

    pairs = "image + SNP, PGS, burden, expression"
    outline: ClassVar = {
        "pretrain": "image, and the fields that the option `genetics` names (snp, pgs, burden, rna, ...)"
    }
    widths: dict[str, int]
    """{field: features}."""
    scaling: ExpressionOptions

    def __init__(self, options: Options, schema: Schema):
        o = cast(GeneticOptions, options)
        if problems := list(genetic_problems(self.name, o, schema)):
            raise MethodError(problems)
        super().__init__(options, schema)
        self.widths = {n: int(schema.fields[n].shape[0]) for n in o.genetics}  # type: ignore[index,arg-type]
        self.scaling = o.genes
        self._build_statistics()

    def _build_statistics(self) -> None:
        """mean_NAME, std_NAME: the training split's, or 0 and 1; a feature that never varies becomes 0."""
        for name, width in self.widths.items():
            field = self.schema.fields[name]
            mean = np.zeros(width) if field.mean is None else np.asarray(field.mean)
            std = np.ones(width) if field.std is None else np.asarray(field.std)
            self.register_buffer(f"mean_{name}", torch.from_numpy(mean.astype(np.float32)))
            self.register_buffer(f"std_{name}", torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))

    def _read_genetics(self, record: Record) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
        """Vectors as stored, zeros in place of one that a sample lacks; and which it has."""
        arrays, present = {}, {}
        for name, width in self.widths.items():
            present[name] = record.has(name)
            dtype = self.schema.fields[name].dtype or "float32"
            values = record.read(name) if present[name] else np.zeros(width)
            arrays[name] = self._checked(record, name, values, width).astype(dtype)
        return arrays, present

    @staticmethod
    def _checked(record: Record, name: str, values: np.ndarray, width: int) -> np.ndarray:
        if values.shape != (width,):
            raise MethodError(
                [f"sample {record.key}: '{name}' has shape {values.shape}, not ({width},); pack it again"]
            )
        if name == "snp" and not np.isin(values[np.isfinite(values)], SNP_CODES).all():
            odd = sorted({float(v) for v in values if v not in SNP_CODES})[:3]
            raise MethodError(
                [f"sample {record.key}: 'snp' holds {odd}; genotypes are 0, 1, 2, and -1 for a missing call"]
            )
        return values

    def _vectors(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Genetic vectors as the encoder takes them and the decoder gives them back, and which values are known.

        An unknown value (a missing call, NaN) enters as the likeliest one: the genotype that is the mode at the
        training frequency under Hardy-Weinberg equilibrium, else the mean. It is no target.
        """
        values, known = {}, {}
        for name in self.widths:
            x_BF = batch[name].float()
            known[name] = x_BF.isfinite() & ((x_BF >= 0) if name == "snp" else True)
            mean_F, std_F = getattr(self, f"mean_{name}").float(), getattr(self, f"std_{name}").float()
            if name == "snp":
                # f = mean / 2; the mode of (1-f)^2, 2f(1-f), f^2 changes at f = 1/3 and 2/3.
                likely_F = (mean_F > 2 / 3).float() + (mean_F > 4 / 3).float()
            else:
                likely_F = mean_F
            x_BF = torch.where(known[name] & batch.present[name][:, None], x_BF, likely_F)
            if self.scaling.normalise == "stats":
                counts, clip = name in COUNTS, self.scaling.clip
                x_BF = x_BF - mean_F if counts else standardised(x_BF, mean_F, std_F, clip)
            values[name] = x_BF
        return values, known
