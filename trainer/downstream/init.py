"""Where an encoder comes from: a finished run, its architecture alone, a recipe, or a file of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.contract import Method, Schema
from models.contract.assets import hashed
from models.contract.start_files import replaced, speaks_of_start, start_files, with_start_file, without_start_files
from models.encoders.parts import add_parts
from models.encoders.vit import fit_positions
from models.init.weights import load_strict, read_weights
from models.registry import get_method
from shards.format.meaning import disagreements, one_sided
from shards.tables.alleles import other_alleles
from trainer.config import yaml_text
from trainer.config.recipe import find_recipe, section, todays_options
from trainer.data import meanings_in
from trainer.downstream.task.by_encoder import Applied, applied
from trainer.downstream.task.schema import Task
from trainer.downstream.task.sections import Encoder
from trainer.errors import UserError
from trainer.runtime import seed_everything
from trainer.state.finished import Finished, open_encoder

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Init:
    """An encoder to start from. `weights` is None from scratch (and where the method loads a file of its own: `file`); `parts` are
    added to it, new."""

    method_name: str
    options: Mapping[str, Any]
    schema: Schema
    run: Finished | None
    pretrained: bool
    file: Path | None
    parts: Encoder = field(default_factory=Encoder)
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What the task changes of the options."""
    left_out: tuple[str, ...] = ()
    """What the task says for image encoders of another kind, as lines."""
    title: str = ""
    """What the recipe that it was made by calls it; reports name it so."""

    @property
    def kind(self) -> Literal["pretrained", "scratch", "file"]:
        return "pretrained" if self.pretrained else "file" if self.file else "scratch"

    def sha256(self) -> str | None:
        """Of the weights it starts from."""
        if self.pretrained:
            assert self.run is not None
            return self.run.sha256()
        return hashlib.sha256(self.file.read_bytes()).hexdigest() if self.file else None

    def hashed_options(self) -> dict[str, Any]:
        """All options, with what files hold instead of where they lie: they may move."""
        cls = get_method(self.method_name)
        whole = hashed(cls.Options, cls.Options.parse(self.options).model_dump(mode="json"))
        return replaced(cls.Options, whole, str(self.file), f"sha256:{self.sha256()}") if self.file else whole

    def describe(self) -> dict[str, Any]:
        path = self.run.path if self.run and self.pretrained else self.file
        found = {"kind": self.kind, "path": str(path) if path else None, "sha256": self.sha256()}
        # Where pre-training itself began: from ImageNet or from nothing is the largest difference between two results.
        options = get_method(self.method_name).Options
        starts = start_files(options, self.run.options) if self.run and self.pretrained else {}
        return {**found, "pretrained_from": ", ".join(Path(f).name for f in starts.values())} if starts else found

    def build(self, seed: int) -> Method:
        """The encoder, equal on every rank; from scratch its weights follow the seed. For images of another size than the run's
        positions are interpolated. The task's parts are added afterwards: no file holds them.

        Raises:
            MethodError: weights that do not fit, or parts for an encoder that is no vision transformer.
        """
        return self.build_and_name(seed)[0]

    def build_and_name(self, seed: int) -> tuple[Method, tuple[str, ...]]:
        """The encoder, and which of its weights come from no file although others do."""
        cls = get_method(self.method_name)
        seed_everything(seed, 0, 7)
        method = cls(cls.Options.parse(self.options), self.schema)
        if self.pretrained:
            assert self.run is not None
            load_strict(method, fit_positions(method, read_weights(self.run.weights)), str(self.run.weights))
        if self.parts == Encoder():
            return method, ()
        return method, add_parts(method, **self.parts.model_dump())


def stated(method: str, init: str | None) -> str:
    """`--init` as it is given; `scratch` where it is left out and there is nothing to pre-train.

    Raises:
        UserError: it is left out for a method that is pre-trained.
    """
    if init is None and get_method(method).outline:
        raise UserError(
            f"--init: {method} is pre-trained; give the folder of a finished run, a file of weights, or scratch"
        )
    return init or "scratch"


def find_source(
    method: str, init: str | None, recipe: str | None, task: Task, schema: Schema, demo: bool, random: bool = False
) -> Init:
    """What `--init` means: a run's folder, a file of weights, or `scratch`.

    With mode `scratch`, or `random`, a run gives its architecture alone, so that it is compared with itself. A file and `scratch`
    take the options of a recipe (`recommended`, or `demo` on the demo cohort). The file holds ImageNet or MAE weights of the image
    transformer alone; the methods load it strictly.

    Raises:
        UserError: no such run, another method's, a method that no file of weights can start, or nothing given for one that is pre-trained.
    """
    init, changes = stated(method, init), todays_options(method, task.method)
    if init == "scratch" or Path(init).is_file():
        return _of_recipe(method, init, find_recipe(method, recipe, demo), changes, task, schema, random)
    if recipe is not None:
        raise UserError(f"--recipe {recipe}: {init} is a run, which has options of its own; leave --recipe out")
    return _of_run(method, init, changes, task, random)


def _of_run(method: str, init: str, changes: dict[str, Any], task: Task, random: bool) -> Init:
    run, cls = open_encoder(Path(init)), get_method(method).Options
    if run.method_name != method:
        raise UserError(
            f"{init} is a run of {run.method_name}, not of {method}: give --method {run.method_name}, or another run"
        )
    if speaks_of_start(cls, changes):
        raise UserError(
            "method.image.init and --init RUN: the weights come from the one or the other; use --init scratch with method.image.init"
        )
    said = applied(task, get_method(method), run.options, changes)
    # They were loaded before pre-training; the run's own weights follow, whether the file is still there or not.
    options = without_start_files(cls, cls.over(run.options, said.method))
    pretrained = task.mode != "scratch" and not random
    return Init(
        method, options, run.schema, run, pretrained, None, said.parts, said.method, said.left_out, run.config.title
    )


def _of_recipe(
    method: str, init: str, path: Path, changes: dict[str, Any], task: Task, schema: Schema, random: bool
) -> Init:
    recipe, cls = yaml_text.read(path), get_method(method).Options
    said, options = _options_of(method, recipe, path, changes, task)
    options = options if init == "scratch" else _started(method, options, Path(init))
    files = start_files(cls, options)
    for key, name in files.items():
        if not Path(name).is_file():
            raise UserError(f"method.{key}: {name}: no such file")
    if len(files) > 1:
        both = ", ".join(f"method.{key}" for key in files)
        raise UserError(f"{both}: each names first weights; give one of them")
    file = next((Path(name) for name in files.values()), None)
    if file is not None and (random or task.mode == "scratch"):
        raise UserError(
            f"{'--random' if random else 'mode scratch'} and the weights of {file}: give one of them, not both"
        )
    title = str(recipe.get("title", ""))
    return Init(method, options, schema, None, False, file, said.parts, said.method, said.left_out, title)


def options_by_recipe(method: str, recipe: str, task: Task) -> dict[str, Any]:
    """All options of a method that starts from nothing, defaults included: equal for equal runs, whatever was said of them.

    Raises:
        UserError, MethodError: no such recipe, options that are wrong.
    """
    path, cls = find_recipe(method, recipe, False), get_method(method).Options
    _, options = _options_of(method, yaml_text.read(path), path, todays_options(method, task.method), task)
    return cls.parse(options).model_dump(mode="json")


def _options_of(
    method: str, recipe: dict[str, Any], path: Path, changes: dict[str, Any], task: Task
) -> tuple[Applied, dict[str, Any]]:
    given = todays_options(method, section(recipe, "method", path))
    said = applied(task, get_method(method), given, changes)
    return said, get_method(method).Options.over(given, said.method)


def _started(method: str, options: dict[str, Any], file: Path) -> dict[str, Any]:
    """The options by which a method starts from a file of weights."""
    started = with_start_file(get_method(method).Options, options, str(file))
    if started is None:
        raise UserError(
            f"--init {file}: {method} has no image encoder that a file of weights could start; give a run, or scratch"
        )
    if file.suffix not in WEIGHTS:
        raise UserError(
            f"--init {file}: not a file of weights ({', '.join(WEIGHTS)}); give one, a run's folder, or scratch"
        )
    return started


def check_fields(source: Init, fields: tuple[str, ...], schema: Schema) -> list[str]:
    """Refuses data whose fields are not those that the encoder was built for; returns what could not be compared, as lines.

    Raises:
        UserError: a field that is missing, of another kind or width, with its features in another order, or whose numbers mean
            something else (another patch encoder, another transform, ...).
    """
    problems = []
    for name in fields:
        mine, theirs = source.schema.fields.get(name), schema.fields.get(name)
        assert mine is not None, f"{source.method_name} reads '{name}', which its own schema lacks"
        if theirs is None:
            problems.append(schema.lacks(name, source.method_name))
        elif mine.kind != theirs.kind:
            problems.append(
                f"field '{name}' of {schema.source} is {theirs.kind}, the encoder was trained on {mine.kind}"
            )
        elif mine.kind == "array" and (mine.shape or ())[-1:] != (theirs.shape or ())[-1:]:
            problems.append(
                f"field '{name}' of {schema.source} has shape {theirs.shape}, the encoder was trained on {mine.shape}"
            )
        elif mine.vocabulary and theirs.vocabulary and mine.vocabulary != theirs.vocabulary:
            alleles = other_alleles(mine.vocabulary, theirs.vocabulary)
            why = "other features, or these in another order; pack it with the vocabulary of the training set"
            problems.append(
                f"field '{name}' of {schema.source} is not what the encoder was trained on: {alleles or why}"
            )
    differing = disagreements(
        meanings_in(source.schema), source.schema.source, meanings_in(schema), schema.source, fields
    )
    problems += [str(p) for p in differing]
    if problems:
        raise UserError(problems)
    sides = (source.schema, schema)
    return one_sided([(s.source, meanings_in(s), fields) for s in sides])
