"""Pages that are made from the code when the site is built: commands, keys, exit statuses, files, messages, published tables."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shards", "models", "trainer", "launch")
FORMATS = {
    "A data set": ("shards.format.info", "shards.format.index", "shards.format.terms", "shards.format.meaning"),
    "A run": ("trainer.state.run_folder", "trainer.state.finished", "trainer.state.checkpoint"),
    "A fine-tune": ("trainer.downstream.results", "trainer.downstream.metrics.predictions"),
    "Features": ("trainer.downstream.probes.features",),
    "Exports": ("trainer.export.export", "trainer.export.terms", "trainer.export.preprocessor"),
}
DIFFER = Path(__file__).parent / "differ"
"""What moves the numbers of one table, NAME.md for configs/sweep/NAME.yaml."""
MADE = "*Made from the code when this site was built.*"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Inline code, whatever stands in it."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return f"`` {plain} ``"


# ---------------------------------------------------------------------------------------------------------------- commands


def commands() -> str:
    from launch.medpair import COMMANDS

    parts = [f"# Commands\n\n{MADE}\n\n`medpair NAME` and, in a checkout, `python launch/NAME.py` are the same."]
    for name, what in COMMANDS.items():
        parts.append(f"## medpair {name}\n\n{what[0].upper()}{what[1:]}.")
        parts += [f"```text\n{text}```" for text in _helps(name)]
    return "\n\n".join(parts) + "\n"


def _helps(name: str) -> Iterator[str]:
    if name in ("shards", "models"):
        parser = importlib.import_module(f"{name}.__main__").build_parser()
        yield _help(parser, f"medpair {name}")
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command, below in action.choices.items():
                    yield _help(below, f"medpair {name} {command}")
        return
    module = importlib.import_module(f"launch.{name}")
    if hasattr(module, "parser"):
        yield _help(module.parser(), f"medpair {name}")
    else:
        yield f"{inspect.getdoc(module)}\n"


def _help(parser: argparse.ArgumentParser, prog: str) -> str:
    os.environ["COLUMNS"] = "110"
    parser.prog = prog
    if hasattr(parser, "color"):
        parser.color = False
    return parser.format_help()


# -------------------------------------------------------------------------------------------------------------------- keys


def keys() -> str:
    from trainer.config.schema import Config
    from trainer.downstream.task.schema import Task

    return (
        f"# Keys\n\n{MADE}\n\nAny of them is given on the command line as `key=value`, or stands in a YAML file. An unknown key is refused "
        "with the nearest one. The options of a method (`method.NAME`) stand on its page.\n\n"
        f"## Of pre-training\n\n{_keys(Config)}\n\n## Of a task and its fine-tune\n\n{_keys(Task)}\n"
    )


def _keys(model: type) -> str:
    from models.describe import options_of, shown

    rows = ["| key | default | meaning |", "|---|---|---|"]
    for o in options_of(model):
        default = "" if repr(o.default) == "PydanticUndefined" else code(str(shown(o.default)))
        words = f" One of {', '.join(o.choices)}." if o.choices else ""
        rows.append(f"| `{o.name}` | {default} | {cell(o.meaning + words)} |")
    return "\n".join(rows)


def exits() -> str:
    from trainer import errors

    rows = [
        (errors.EXIT_OK, "done"),
        (errors.EXIT_BUG, "a fault of the program, or of the machine: what was raised is printed"),
        (errors.EXIT_USER, "something to change in the input; all of it is told at once, and nothing is half-written"),
        (errors.EXIT_STOPPED, "stopped with a checkpoint: the same command goes on"),
    ]
    table = "\n".join(["| status | meaning |", "|---|---|", *(f"| {n} | {what} |" for n, what in rows)])
    script = "medpair pretrain ... ; [ $? = 75 ] && scontrol requeue $SLURM_JOB_ID"
    return f"# Exit status\n\n{MADE}\n\n{table}\n\nA job script may ask for it: `{script}`.\n"


def formats() -> str:
    parts = [f"# Files\n\n{MADE}\n\nWhat is written, as the modules that write it describe it."]
    for title, modules in FORMATS.items():
        parts.append(f"## {title}")
        for name in modules:
            parts.append(f"`{name}`\n\n```text\n{inspect.getdoc(importlib.import_module(name))}\n```")
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------------------------------- messages


def messages() -> str:
    """What commands refuse, by the package that says it, with the remedy as it is printed."""
    parts = [
        f"# By error message\n\n{MADE}\n\nLook for a few words of the message (the search of this site finds them; `…` stands for a "
        "name or a number). A message ends with its remedy: of a data set behind `Fix:`, of a run behind the last colon or semicolon."
    ]
    for room in ROOMS:
        found = sorted({m for path in sorted((ROOT / room).rglob("*.py")) for m in _told(ast.parse(path.read_text()))})
        rows = [f"| {code(what)} | {code(fix) if fix else ''} |" for what, fix in found]
        parts.append("\n".join([f"## {room}", "", "| message | what to do |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _told(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("bad", "Problem") and len(node.args) == 3:
            what, fix = _text(node.args[0]), _text(node.args[2])
        elif name in ("UserError", "HeaderError") and node.args:
            what, fix = _text(node.args[0]), ""
        else:
            continue
        if len(re.findall(r"[a-z]{2,}", what)) > 2:
            yield what, fix


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ""


# --------------------------------------------------------------------------------------------------------- published tables


def differ() -> str:
    """Of each table that has a recipe: what its paper leaves open, its command, the systems in it with the places where their pages say why
    a number might differ."""
    from models.registry import method_names
    from trainer.config import yaml_text

    parts = [
        f"# Why might my number differ?\n\n{MADE}\n\nA table of a paper is run by one command. Below its title stands what its paper "
        "leaves open or says twice; what a system leaves open, on its page; what holds for all of them, behind the tables."
    ]
    for path in sorted((ROOT / "configs/sweep").glob("*-table*.yaml")):
        recipe, text = yaml_text.read(path), path.read_text()
        names = [n for n in method_names() if re.search(rf"\b{n}\b", text)]
        rows = [f"| [{n}](methods/{n}.md{_anchor(n)}) | {_states(n)} |" for n in names]
        head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
        claims = re.split(r"(?=Command:|Demo:|Time:|Hardware:|Expected:|Result:)", head)
        parts.append(
            f"## {recipe.get('title', path.stem)}\n\n{(DIFFER / path.stem).with_suffix('.md').read_text()}\nHow it is run:\n\n"
            + "\n".join(f"- {cell(c)}" for c in claims if c.strip())
            + "\n\n| system | state |\n|---|---|\n"
            + "\n".join(rows)
        )
    parts.append(COMMON)
    return "\n\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    heading = re.search(r"^## (Why .*differ\??)$", (ROOT / f"docs/methods/{name}.md").read_text(), re.M)
    if not heading:
        return ""
    return "#" + re.sub(r"[^\w\- ]", "", heading[1].lower()).strip().replace(" ", "-")


def _states(name: str) -> str:
    found = re.search(r"^State: (.+?)(?=\n\n|\Z)", (ROOT / f"docs/methods/{name}.md").read_text(), re.M | re.S)
    return cell(found[1]) if found else ""


COMMON = """## What holds for all tables

| what | how it moves a number | where medpair says it |
|---|---|---|
| patients in two splits | published lists often have them; a number then rises | `leak` in a result, [evaluation](evaluation.md) |
| the metric's convention | macro or micro, threshold, ties, absent classes | [evaluation](evaluation.md), and the column of a report |
| which weights are kept | last, best on validation, best on test | `protocol.select` ([keys](reference/keys.md)) |
| seeds | a difference below the spread of three seeds says nothing | intervals in [compare](compare.md) |
| the size of the test set | 60 patients give an interval of 0.2 and more | the interval beside each number |
| where pre-training began | ImageNet or nothing is often the largest difference of all | `pretrained_from` in a result |
| patch encoder, magnification | features of another one are other data | `python -m shards info DIR` |
| kernels, TF32, bf16 | the last digits; over many epochs more | [training](training.md) |
"""


# ------------------------------------------------------------------------------------------------------- pages from outside


def methods() -> str:
    from models.describe import system_table

    table = re.sub(r"\(methods/", "(", system_table(ROOT))
    each = "Each page: the paper, what it leaves open and what was chosen, options, recipes, what to expect."
    return f"# Methods\n\n{MADE}\n\n{each}\n\n{table}\n"


def outside(name: str) -> Callable[[], str]:
    """A page of the repository's top, with its links as they are in the site."""

    def text() -> str:
        found = (ROOT / name).read_text()
        found = re.sub(r"\]\(docs/(README\.md)?", lambda m: "](README.md" if m[1] else "](", found)
        return re.sub(r"\]\((README|CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({PAGES_OF[m[1]]}", found)

    return text


PAGES_OF = {"README": "README.md", "CONTRIBUTING": "contributing.md", "CHANGELOG": "changelog.md"}
PAGES: dict[str, Callable[[], str]] = {
    "overview.md": outside("README.md"),
    "contributing.md": outside("CONTRIBUTING.md"),
    "changelog.md": outside("CHANGELOG.md"),
    "methods/index.md": methods,
    "differ.md": differ,
    "reference/commands.md": commands,
    "reference/keys.md": keys,
    "reference/exit-status.md": exits,
    "reference/files.md": formats,
    "reference/messages.md": messages,
}
"""Page -> what it holds."""
