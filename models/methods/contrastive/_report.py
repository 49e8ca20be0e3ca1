"""What systems share that compare images with reports: options, the text encoder, what makes two samples the same.

Shape letters: B samples, L token places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from models.contract import Record, Sample, Schema
from models.contract.joint import ReadText
from models.encoders.report_bert import BertOptions, ReportBert
from models.losses.contrastive import SamePatient
from models.methods._report import ReportMethod, ReportOptions
from models.parallel import alone, global_mean
from models.transforms.patients import patient_number
from models.transforms.report_text import chosen, cleaned
from models.transforms.report_tokens import text_number


class ReportPairOptions(ReportOptions):
    """Options of a system that compares images with reports."""

    text: BertOptions = BertOptions()
    """The text encoder."""
    compared: Literal["all", "rank"] = "all"
    """Samples are compared with those of all ranks, or with those of their own rank alone (the published codes)."""
    same_text: SamePatient = "ignore"
    """Samples of a batch with the very same text: left out of each other's comparisons, each other's positives, or negatives."""
    same_patient: SamePatient = "ignore"
    """Samples of one patient in a batch, alike."""
    order: Literal["patient_unique", "shuffle"] = "patient_unique"
    """Batches with at most one image of a patient, or of any images."""


class ReportPairMethod(ReportMethod):
    """Base of systems whose stage `pretrain` compares images with texts of their reports; the image encoder is what is kept."""

    pooled_text: ClassVar[bool] = False
    """Whether the text encoder has BERT's pooler."""
    by_words: ClassVar[bool] = False
    """Whether the parts of a text are compared, its words: samples say which word each token is of."""
    options: ReportPairOptions

    def __init__(self, options: ReportPairOptions, schema: Schema):
        super().__init__(options, schema)
        o = self.options
        self.text: ReportBert = o.text.build(
            self.tokens.rows, o.report_length, self.tokens.sha256, self.pooled_text, self.new_pooler(o)
        )

    @classmethod
    def new_pooler(cls, options: ReportPairOptions) -> bool:
        """Whether a pooler is learned from nothing though the text encoder starts from a file."""
        return False

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: the whole image, no text."""
        super().enter(stage)
        if stage == "pretrain" and self.options.text.freeze_layers is not None:
            for p in self.text.bottom(self.options.text.freeze_layers):
                p.requires_grad_(False)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """And in pre-training `text` and `patient` as numbers; `by_words` also `word` [L], the word of each token."""
        made = super().sample(record, rng)
        if self.stage:
            ids_L = made.arrays["report"]
            made.arrays |= {"text": text_number(ids_L), "patient": patient_number(record.patient)}
            if self.by_words:
                made.arrays["word"] = self.tokens.word_of_token(ids_L)
        return made

    # ---------------------------------------------------------------------------------------------------- the joint space

    def read_text(self, text: str, prompt: bool = False) -> ReadText:
        """A report's part that is read, all sentences of it, or a prompt; cleaned as in pre-training, `text_unit` aside."""
        o = self.options
        # A report's sentence of one word is an artefact of cutting it; a prompt of one word is what somebody wrote.
        sentences = cleaned(text if prompt else chosen(text, o.sections), o.clean, shortest=1 if prompt else 2)
        if not prompt and sum(len(s.split()) for s in sentences) < o.min_words:
            sentences = []
        ids_L, count = self.ids_of(" ".join(sentences))
        arrays = {"report": ids_L}
        if self.by_words:
            arrays["word"] = self.tokens.word_of_token(ids_L)
        unknown = int((ids_L == self.tokens.unk).sum())
        return ReadText(Sample(arrays, {"report": count > 0}), count, unknown, self.options.report_length - self.ends)

    def joint_problem(self) -> str:
        return ""

    def over(self, loss: Callable[[], Tensor], weight_B: Tensor) -> Tensor:
        """A loss over all ranks' samples, or of each rank's own ones: then the mean over ranks, each by its samples."""
        if self.options.compared == "all":
            return loss()
        with alone():
            value = loss()
        count = weight_B.sum().to(value.dtype)
        return global_mean(value * count, count)
