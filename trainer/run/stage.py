"""One stage of a run: its engine, its data, the loop, and what it hands on to the next."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from models.contract import Batch, Method
from trainer.engine.engine import Engine
from trainer.engine.feed import StepLoader
from trainer.errors import Stopped
from trainer.health.spikes import RollBack, Spikes
from trainer.health.steps import BadSteps
from trainer.loop import StageRun, train
from trainer.plan import StagePlan, entered_bytes
from trainer.probe.live import LiveProbes
from trainer.run.job import Run
from trainer.run.restore import restore
from trainer.run.weights import probe_loss, write_weights
from trainer.runtime import from_main, seed_everything
from trainer.state import left_out
from trainer.state.disk import written
from trainer.state.files import write_atomic
from trainer.tracking.showing import show
from trainer.tracking.tracker import Tracker


def train_stage(run: Run, tracker: Tracker, bad: BadSteps, found: tuple[Path, dict[str, Any]] | None) -> None:
    config, runtime, progress = run.config, run.runtime, run.progress
    plan = run.plans[progress.stage]
    run.watchdog.at("start", progress.step)
    same_world = found is None or found[1]["world"] == runtime.world
    engine = _engine_for(run, plan, same_world)
    # Before the seeding: to build a method draws random numbers.
    live = _live(run)
    engine.at(plan.done(progress.updates))  # before the probe batch: its loss was stored at this very place
    seed_everything(config.seed, 1 + runtime.rank, progress.step)
    loader = run.data.loader(config, plan.stage, engine.method, runtime)
    validation = run.data.validation(config, plan.stage, engine.method, runtime)
    probe = run.data.probe(config, plan.stage, engine.method).to(runtime.device)
    best = run.out / "stages" / f"{plan.stage.name}-best.safetensors"
    if found is not None:
        restore(run, engine, probe, same_world, best, *found)
        from_main(run.record)  # not earlier: weights that do not fit must leave the folder as it was
    else:
        _carry_best(run, plan, best)
    stage_run = StageRun(
        stage=plan.stage,
        steps=plan.steps,
        epoch_steps=plan.epoch_steps,
        evaluate_every=plan.evaluate_every,
        save_every=config.checkpoint.every or plan.epoch_steps,
        loader=loader,
        keys=lambda epoch, step: run.data.keys(config, plan.stage, epoch, step),
        validation=validation,
        evaluate=run.job.evaluate,
        chance=engine.method.chance(config.global_batch // engine.accumulation),
        save=lambda: _save(run, engine, loader, probe, best),
        keep_best=lambda: write_weights(best, engine, runtime),
        show=lambda: show(engine, probe, tracker, progress.step),
        done=plan.done,
        at=run.watchdog.at,
        schedule_start=plan.schedule_start,
        schedule_steps=plan.schedule_steps,
        left_out=left_out.steps(from_main(lambda: left_out.windows(run.out))),
        spikes=Spikes(config.health.rollback, progress) if config.health.rollback.times else None,
        unsaved=lambda: run.checkpoints.failed,
        live=live,
    )
    _train(run, stage_run, engine, tracker, bad)
    if live is not None:
        runtime.say(live.text())
    run.watchdog.at("finish", progress.step)
    _keep_stage(run, plan, engine, best)
    engine.close()


def _save(run: Run, engine: Engine, loader: StepLoader, probe: Batch, best: Path) -> None:
    """A checkpoint of all ranks, with the loss of the probe batch that a resume is compared with."""
    state = {
        "progress": run.progress.state(),
        "loader": loader.state(run.progress.consumed),
        "probe": probe_loss(engine, probe),
        **run.about(),
    }
    run.checkpoints.save(engine, run.progress.step, state, best if run.progress.best is not None else None)


def _live(run: Run) -> LiveProbes | None:
    """Looks at the encoder while this stage trains, where they are asked for."""
    if not run.config.monitor.probe.every:
        return None
    return LiveProbes(run.config, run.data, run.runtime, lambda: run.job.build(run.progress.stage))


def _train(run: Run, stage_run: StageRun, engine: Engine, tracker: Tracker, bad: BadSteps) -> None:
    try:
        with run.checkpoints.settled():
            train(stage_run, engine, run.runtime, run.progress, tracker, run.stop, bad)
    except Stopped as e:
        raise Stopped(
            f"{e}; saved in {run.checkpoints.path(run.progress.step)}. The same command goes on from there"
        ) from None
    except RollBack:
        engine.close()  # another one takes its place in this process
        raise
    finally:
        stage_run.loader.close()
        if stage_run.validation is not None:
            stage_run.validation.close()


def _engine_for(run: Run, plan: StagePlan, same_world: bool) -> Engine:
    """The engine of a stage, and memory for what its saves copy."""
    config, method = run.config, _method_for(run, plan)
    copies = entered_bytes(method, plan.stage.name, config, run.runtime.world).saved
    universal = not same_world and config.zero.stage > 0
    engine = Engine(method, config, plan.stage.name, run.runtime, universal=universal)
    if engine.compiled is not None:
        engine.compiled.watch(run.watchdog.compiling)
    run.checkpoints.reserve(engine, copies)
    return engine


def _method_for(run: Run, plan: StagePlan) -> Method:
    """The method as a stage begins: seeded, with the weights of the stage before."""
    method = run.job.build(run.progress.stage)
    before = _weights_before(run)
    if before is not None:
        method.load_state_dict(load_file(before), strict=True)
    method.enter(plan.stage.name)
    return method


def _carry_best(run: Run, plan: StagePlan, best: Path) -> None:
    """Where a stage goes on with the training of the one before, its best weights so far are that one's."""
    if plan.schedule_start and run.progress.best is not None:
        earlier = run.out / "stages" / f"{run.plans[run.progress.stage - 1].stage.name}-best.safetensors"
        with written(best, "the best weights"):
            from_main(lambda: shutil.copyfile(earlier, best))


def _keep_stage(run: Run, plan: StagePlan, engine: Engine, best: Path) -> None:
    """Writes what the stage hands on: the best weights if it selects and the plan does not ask for the last, else the last."""
    final, progress = run.out / "stages" / f"{plan.stage.name}.safetensors", run.progress
    if progress.best is None or plan.stage.select is None or plan.carry == "last":
        write_weights(final, engine, run.runtime)
        return
    value = f"{plan.stage.select[0]} {progress.best:.4f}"
    run.runtime.say(
        f"stage {plan.stage.name}: goes on with the weights of step {progress.best_step} ({value} held back)"
    )
    with written(final, f"the weights of stage {plan.stage.name}"):
        from_main(lambda: write_atomic(final, best.read_bytes()))


def _weights_before(run: Run) -> Path | None:
    """Weights of the last stage before this one that trained."""
    for plan in reversed(run.plans[: run.progress.stage]):
        path = run.out / "stages" / f"{plan.stage.name}.safetensors"
        if plan.steps and path.exists():
            return path
    return None
