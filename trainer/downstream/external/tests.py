"""`tests:` of a task: further data sets, each looked at once with the weights that validation chose; OUT/external/NAME."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.downstream.external.look import look_once
from trainer.downstream.external.opened import External, open_external
from trainer.downstream.external.trained import Trained, of_setting, open_trained
from trainer.downstream.setting import Setting
from trainer.downstream.task.other_data import OtherData
from trainer.errors import UserError
from trainer.runtime import Runtime

FOLDER = "external"


def given_by(other: OtherData) -> dict[str, Any]:
    """What is said of a data set, as words of `launch/predict.py` would say it."""
    data = {"path": other.path} | ({"split": other.split} if other.split else {})
    return {**other.reads, "data": data, "leak": {"accept": other.accept_leak}}


def check_tests(setting: Setting) -> list[str]:
    """Opens every set before anything is trained, and checks what can be known by then; a line for each.

    Raises:
        UserError, DataError: whatever keeps one from being measured, of all sets at once.
    """
    if not setting.task.tests:
        return []
    trained, problems, lines = of_setting(setting), list[str](), []
    for name, other in setting.task.tests.items():
        try:
            found = _opened(setting, trained, name, other)
        except UserError as e:
            problems += [f"tests.{name}: {p}" for p in e.problems]
            continue
        lines.append(f"then {name}: {len(found.indices)} cases of {other.path}, {found.split}")
        found.close()
    if problems:
        raise UserError(problems)
    return lines


def look_at_tests(setting: Setting, runtime: Runtime) -> Mapping[str, dict[str, Any]]:
    """Looks at every set that was not looked at yet; result.json of each by name."""
    out: dict[str, dict[str, Any]] = {}
    if not setting.task.tests:
        return out
    trained = open_trained(setting.out)
    for name, other in setting.task.tests.items():
        found = _opened(setting, trained, name, other)
        try:
            out[name] = look_once(found, name, runtime, setting.task.resume.accept_code)
        finally:
            found.close()
    return out


def _opened(setting: Setting, trained: Trained, name: str, other: OtherData) -> External:
    return open_external(trained, given_by(other), setting.out / FOLDER / name, True, other.impute == "mean")
