"""The door for others: `load_exported(DIR)` gives the method of an `--to safetensors` export, `load_tuned(DIR)` a fine-tune's model."""

from trainer.export.head import Case as Case
from trainer.export.head import load_tuned as load_tuned
from trainer.export.head import scores as scores
from trainer.export.opened import load_exported as load_exported
