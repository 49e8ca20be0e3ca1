"""Pre-training: what is checked before it starts, the plan alone (`--print-config`, `--dry-run`), and what it leaves when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from trainer.build import build_method, make_plans, resolve
from trainer.config.schema import Config
from trainer.data import open_data
from trainer.engine.engine import split_batch
from trainer.engine.giants import refuse_giants
from trainer.engine.queues import check_queues
from trainer.errors import UserError
from trainer.plan import describe
from trainer.probe.live import check_live_probe
from trainer.probe.projection import projection
from trainer.run import Job, Run
from trainer.runtime import check_precision, environment_rank, environment_world
from trainer.state.disk import written
from trainer.state.files import write_atomic
from trainer.state.finished import write_card
from trainer.state.run_folder import as_begun
from trainer.tracking.showing import reason
from trainer.tracking.summary import report
from trainer.tracking.tracker import Tracker


def prepare(config: Config, world: int, here: bool = True, planned: bool = False) -> Job:
    """Opens the data, builds the method once and works the plan out.

    Args:
        here: for this machine's devices.
        planned: nothing is started now: what only this machine's devices refuse is a line of the plan.

    Raises:
        UserError, DataError, MethodError: something the user has to change.
    """
    config = as_begun(config)
    split_batch(config, world)
    lacks = check_precision(config.precision, planned) if here else []
    cls, options, resolved = resolve(config)
    data = open_data(config, here)
    if here:
        refuse_giants(cls, options, data.schema)
    method = build_method(config, data)
    if not method.stages():
        name = config.method_name
        raise UserError(
            f"{name} learns from a task's labels alone, there is nothing to pre-train: "
            f"deepspeed launch/finetune.py --task TASK --method {name} --init scratch"
        )
    plans = make_plans(config, data, method)
    if not any(p.steps for p in plans):
        raise UserError(
            f"no step in {len(plans)} stage{'s' if len(plans) > 1 else ''} ({', '.join(p.stage.name for p in plans)}): nothing would be "
            f"trained; give stages.{plans[-1].stage.name}.epochs or a length (epochs=N, steps=N) of at least 1"
        )
    check_queues(method, config.global_batch)
    check_live_probe(config, data)
    for plan in plans:
        data.check(config, plan.stage, world)
    data.check_made_of(method)
    untold = [note for plan in plans if plan.steps for note in data.untold(method, plan.stage)]
    dropped = [data.plan(config, p.stage).dropped for p in plans]
    text = describe(method, plans, config, world, data.samples, dropped)
    text = "\n".join(
        [text, *data.meaning_notes(), *untold, *data.cache_notes([p.stage for p in plans if p.steps]), *lacks]
    )
    return Job(
        config, resolved, data, plans, text, lambda stage: build_method(config, data, stage), _finish, closing=_closing
    )


# ------------------------------------------------------------------------------------------------------------- the plan alone


def plan_elsewhere(config: Config, recipe: Path, world: int) -> str:
    """What `dry_run` prints, for ranks on other machines than this one.

    Raises:
        UserError, DataError, MethodError: what the run would refuse.
    """
    job = prepare(config, world, here=False)
    job.data.close()
    return f"# {recipe}\n{_shown(as_planned(job))}\n{job.plan_text}\n"


def as_planned(job: Job) -> dict[str, Any]:
    """The configuration with one length a stage: `steps` or `epochs` take the place of what the recipe gives the last stage."""
    config, resolved = job.config, job.resolved
    if not job.plans or not (config.steps or config.epochs):
        return resolved
    last, stages = job.plans[-1].stage.name, resolved["stages"]
    if last in stages:
        stages = {**stages, last: {**stages[last], "epochs": None, "steps": None}}
    return {**resolved, "stages": stages}


def _shown(resolved: dict[str, Any]) -> str:
    return yaml.safe_dump(resolved, sort_keys=False)


def dry_run(config: Config, recipe: Path, plan: bool, world: int | None) -> None:
    """Prints the resolved configuration; with `plan` also stages, steps, parameters and memory of a rank."""
    _, _, resolved = resolve(as_begun(config))
    if environment_rank():
        return
    if plan:
        job = prepare(config, world or environment_world(), planned=True)
        job.data.close()
        print(f"# {recipe}\n{_shown(as_planned(job))}\n{job.plan_text}")
        return
    print(f"# {recipe}\n{_shown(resolved)}", end="")
    if (config.steps or config.epochs) and any(s.steps or s.epochs for s in config.stages.values()):
        given = f"steps: {config.steps}" if config.steps else f"epochs: {config.epochs}"
        print(f"# {given} is the length of the last stage, whatever its own section says; --dry-run tells all lengths")


# ----------------------------------------------------------------------------------------------------------------- the end


def _finish(run: Run, tracker: Tracker, step: int) -> None:
    """The run's product: the last trained stage's weights, and what is needed to build the method around them."""
    trained = [p.stage.name for p in run.plans if p.steps]
    if trained:
        last = run.out / "stages" / f"{trained[-1]}.safetensors"
        with written(run.out / "weights.safetensors", "the trained weights"):
            write_atomic(run.out / "weights.safetensors", last.read_bytes())
    with written(run.out, "the card of the weights"):
        write_card(run.out, run.config, run.resolved["method"], run.data)
    if trained:
        show_projection(run, tracker, step)


def show_projection(run: Run, tracker: Tracker, step: int) -> None:
    """The picture at the end: the run is trained by then."""
    try:
        picture = projection(run.config, run.data, run.out / "weights.safetensors")
        if picture is not None:
            write_atomic(run.out / "projection.png", picture)
            tracker.png("projection", picture, step)
    except Exception as e:
        run.runtime.say(f"projection.png was not drawn: {reason(e)}")


def _closing(run: Run) -> str:
    total = sum(p.steps for p in run.plans)
    title = f"{run.config.method_name} is trained: {total} steps in {len(run.plans)} stage{'s' if len(run.plans) > 1 else ''}"
    selected = [p.stage.select[0] for p in run.plans if p.stage.select]
    return report(run.out, title, run.config.method_name, run.data.demo, selected)
