"""Names for the two things whose type only a look at them tells. Nothing else is `Any` without saying so.

A `Json` or a `Decoded` is never handed on as it is: who reads it asks `isinstance`, or gives it to a typed model.
"""

from typing import Any, TypeAlias

Json: TypeAlias = Any
"""A value of a JSON or YAML file, or of a cell, before it is checked: whatever somebody wrote there."""

Decoded: TypeAlias = Any
"""A decoded member: an array, a text or a `Json`, by its extension, which the field's kind in dataset.json says."""
