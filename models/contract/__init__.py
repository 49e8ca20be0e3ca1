"""The contract between a method and everything around it.

A method is an `nn.Module` in one file, registered by name (models/registry.py). The trainer, the fine-tune runner and the
contract test know a method through these names alone.
"""

from models.contract.batch import Batch, Encoded, Output, Record, Sample
from models.contract.errors import MethodError
from models.contract.explain import explain
from models.contract.head import Head, HeadOutput, TargetSpec
from models.contract.method import Group, Method, Stage
from models.contract.options import Options
from models.contract.schema import Field, Label, Schema

__all__ = [
    "Batch", "Encoded", "Field", "Group", "Head", "HeadOutput", "Label", "Method", "MethodError", "Options", "Output", "Record", "Sample",
    "Schema", "Stage", "TargetSpec", "explain",
]  # fmt: skip
