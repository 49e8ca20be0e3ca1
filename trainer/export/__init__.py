"""The door for others: `load_exported(DIR)` gives the method of an `--to safetensors` export."""

from trainer.export.opened import load_exported as load_exported
