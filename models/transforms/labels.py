"""Which label a supervised stage learns from, and a sample's code in it."""

from __future__ import annotations

import shlex

from models.contract import Label, MethodError, Record, Schema


def class_label(schema: Schema, name: str | None) -> Label:
    """The class label to learn from: the one named, or the only one, or whichever of `subtype` and `label` there is.

    Raises:
        MethodError: no such label, not a class label, fewer than two classes, or none named where several could be
            meant.
    """
    classes = [c for c in schema.labels.values() if c.kind == "class"]
    if name is None:
        usual = [c for c in classes if c.name in ("subtype", "label")]
        found = classes if len(classes) == 1 else usual
        if len(found) != 1:
            has = ", ".join(c.name for c in classes) or "none"
            such = f", such as {shlex.quote(f'method.label={classes[0].name}')}" if classes else ""
            raise MethodError(
                [f"{schema.source} has no one class label to learn from (it has: {has}); set method.label{such}"]
            )
        name = found[0].name
    label = schema.need_label(name)
    if label.kind != "class" or len(label.classes) < 2:
        raise MethodError([f"label '{name}' of {schema.source} has no two classes; set method.label to one that has"])
    return label


def label_code(record: Record, label: Label) -> int:
    """The sample's class as a number, -1 where it has none.

    Raises:
        MethodError: a value that is not one of the label's classes.
    """
    name = record.labels.get(label.name)
    if name is None or name == "":
        return -1
    if name not in label.classes:
        known = ", ".join(label.classes)
        raise MethodError(
            [f"sample {record.key}: label '{label.name}' is '{name}', which is none of {known}; mend the label"]
        )
    return label.classes.index(str(name))
