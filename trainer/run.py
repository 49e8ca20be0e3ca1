"""A pre-training run from its configuration to its weights: stages in order, each resumed where a checkpoint left it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models.contract import Batch, Method
from models.init.grids import grid_text
from models.init.weights import weights_bytes
from models.parallel import alone
from shards.format.meaning import disagreements
from shards.load.position import version_of
from trainer.config.schema import Config, out_folder
from trainer.data import Data
from trainer.engine.engine import Engine
from trainer.engine.evaluation import evaluate
from trainer.engine.feed import EvalLoader
from trainer.errors import Stopped, TrainingError, UserError, everywhere
from trainer.health.spikes import RollBack, Spikes
from trainer.health.steps import BadSteps
from trainer.health.watchdog import Watchdog
from trainer.loop import Progress, StageRun, train
from trainer.plan import StagePlan, entered_bytes
from trainer.probe.live import LiveProbes
from trainer.runtime import Runtime, StopFlag, agree_on_data, from_main, gather_objects, seed_everything
from trainer.state import left_out
from trainer.state.checkpoint import Checkpoints
from trainer.state.disk import written
from trainer.state.files import write_atomic
from trainer.state.run_folder import RunFolder, versions
from trainer.tracking.showing import show
from trainer.tracking.tracker import Tracker


@dataclass
class Run:
    """Everything that lives as long as the run."""

    config: Config
    resolved: dict[str, Any]
    out: Path
    runtime: Runtime
    data: Data
    plans: list[StagePlan]
    checkpoints: Checkpoints
    progress: Progress
    stop: StopFlag
    job: Job
    folder: RunFolder
    watchdog: Watchdog

    def about(self) -> dict[str, Any]:
        """What a checkpoint holds of the run besides its progress."""
        return {
            "world": self.runtime.world,
            "config": self.resolved,
            "versions": versions(),
            "meanings": self.data.meanings,
        }

    def record(self) -> None:
        self.folder.record(self.resolved, versions())


@dataclass
class Job:
    """What a run will do, checked before any process group or training exists."""

    config: Config
    resolved: dict[str, Any]
    data: Data
    plans: list[StagePlan]
    plan_text: str
    build: Callable[[int], Method]
    """The method with its initial weights for the stage of this number: a function of the seed alone, equal on every rank."""
    finish: Callable[[Run, Tracker, int], None]
    """Writes the run's product; on rank 0."""
    evaluate: Callable[[Engine, EvalLoader, Runtime], dict[str, float]] = evaluate
    """Named values on the held-back split; on all ranks."""
    closing: Callable[[Run], str | None] = lambda run: None
    """What to say at the end."""


def train_job(job: Job, runtime: Runtime, stop: StopFlag) -> None:
    """Runs, or goes on with, the run in `config.out`.

    Raises:
        Stopped: a signal asked for it and the run is saved.
        UserError: a folder that cannot be used, or that holds another run.
        DataError: more bad samples than allowed.
        TrainingError: the run cannot go on.
    """
    config, out = job.config, out_folder(job.config)
    folder, watchdog, checkpoints = RunFolder(out), None, None
    try:
        from_main(lambda: folder.claim(config.resume, job.resolved))
        agree_on_data(job.data.fingerprint)
        token = from_main(lambda: Watchdog.prepare(out, config.health))
        watchdog = Watchdog(out, runtime.rank, runtime.world, config.health, token)
        runtime.say(job.plan_text)
        checkpoints = Checkpoints(out, config.checkpoint, runtime, config.health)
        run = Run(
            config, job.resolved, out, runtime, job.data, job.plans, checkpoints, Progress(), stop, job, folder, watchdog
        )  # fmt: skip
        from_main(lambda: left_out.settle(out, checkpoints))
        found = checkpoints.find()
        if found is None:
            from_main(run.record)
        with folder.note_of_its_end():
            _train_on(run, found)
    finally:
        if watchdog is not None:
            watchdog.close()
        if checkpoints is not None:
            checkpoints.close()
        job.data.close()
        folder.release()


def _train_on(run: Run, found: tuple[Path, dict[str, Any]] | None) -> None:
    """All that is left of the run, back to a checkpoint and on again where a spike asks for it."""
    while True:
        try:
            return _train_all(run, found)
        except RollBack as e:
            found = _go_back(run, e)


def _go_back(run: Run, back: RollBack) -> tuple[Path, dict[str, Any]]:
    """The checkpoint before a spike, once its steps are left out.

    Raises:
        TrainingError: there is none.
    """
    from_main(lambda: left_out.add(run.out, run.checkpoints, back, lambda: _samples(run, back)))
    run.runtime.say(f"{back}. The run goes back and leaves them out; their samples stand in {run.out / left_out.NAME}")
    found = run.checkpoints.find()
    assert found is not None, "one was verified"
    return found


def _samples(run: Run, back: RollBack) -> dict[str, list[str]]:
    """Keys of the samples of each step of the window, where it lies in the stage that runs."""
    plan, begins = run.plans[run.progress.stage], run.progress.step - run.progress.stage_step
    return {
        str(s): run.data.keys(run.config, plan.stage, *divmod(plan.schedule_start + s - begins - 1, plan.epoch_steps))
        for s in range(max(back.first, begins + 1), back.last + 1)
    }


def _train_all(run: Run, found: tuple[Path, dict[str, Any]] | None) -> None:
    run.progress = _progress_of(run, *found) if found is not None else Progress()
    run.progress.rollbacks = len(from_main(lambda: left_out.windows(run.out)))
    total = sum(p.steps for p in run.plans)
    log = run.config.log
    tracker = Tracker(run.out, run.runtime, run.progress.step, total, log.every, log.tensorboard)
    bad = BadSteps(run.config.health.max_bad_steps, [(s, k) for s, k in run.progress.bad_steps])
    try:
        while run.progress.stage < len(run.plans):
            if run.plans[run.progress.stage].steps:
                _train_stage(run, tracker, bad, found)
                found = None
            following = run.plans[run.progress.stage + 1 : run.progress.stage + 2]
            run.progress.next_stage(goes_on=any(p.schedule_start for p in following))
        run.watchdog.at("finish", run.progress.step)
        from_main(lambda: run.job.finish(run, tracker, total))
    finally:
        tracker.close()
    text = run.job.closing(run) if run.runtime.main else None
    if text is not None:
        run.runtime.say(text)


def _train_stage(run: Run, tracker: Tracker, bad: BadSteps, found: tuple[Path, dict[str, Any]] | None) -> None:
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
        _restore(run, engine, probe, same_world, best, *found)
        from_main(run.record)  # not earlier: weights that do not fit must leave the folder as it was
    else:
        _carry_best(run, plan, best)

    def save() -> None:
        state = {
            "progress": progress.state(),
            "loader": loader.state(progress.consumed),
            "probe": probe_loss(engine, probe),
            **run.about(),
        }
        run.checkpoints.save(engine, progress.step, state, best if progress.best is not None else None)

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
        save=save,
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


def write_weights(path: Path, engine: Engine, runtime: Runtime) -> None:
    """Whole float32 weights as safetensors; every rank must call."""
    weights, grids = engine.weights(), grid_text(engine.method)
    with written(path, "weights"):
        from_main(lambda: write_atomic(path, weights_bytes(weights, grids)))


@torch.no_grad()
def probe_loss(engine: Engine, probe: Batch) -> float:
    """Loss of the probe batch, each rank for itself and without dropout: the same number before a save and after a load."""
    engine.train(False)
    with alone():
        loss = float(engine.forward(probe).total)
    engine.train()
    return loss


def _progress_of(run: Run, path: Path, state: dict[str, Any]) -> Progress:
    """Where the checkpoint stands, after checking that it is of this run.

    Raises:
        UserError: other data, another method, another sharding.
    """
    old, new = state["config"], run.resolved
    problems = []
    if old["method_name"] != new["method_name"]:
        problems.append(
            f"{path} is a checkpoint of {old['method_name']}, not of {new['method_name']}: give another out=FOLDER"
        )
    if old["zero"]["stage"] != new["zero"]["stage"] or old["precision"] != new["precision"]:
        problems.append(
            f"{path} was saved under zero.stage={old['zero']['stage']} precision={old['precision']}; "
            f"DeepSpeed cannot load it under {new['zero']['stage']}, {new['precision']}: keep them, or give another out=FOLDER"
        )
    if state["loader"]["fingerprint"] != run.data.fingerprint and not run.config.resume.accept_data:
        problems.append(
            f"{path} was trained on data with fingerprint {state['loader']['fingerprint']}, "
            f"data.path has {run.data.fingerprint}: restore the data set, or accept the new one with resume.accept_data=true"
        )
    # Other data may be accepted; numbers that mean something else may not.
    differing = disagreements(state.get("meanings", {}), path, run.data.meanings, ", ".join(run.data.paths))
    problems += [str(p) for p in differing]
    if problems:
        raise UserError(problems)
    run.data.order_version = version_of(state["loader"])  # before a loader or the probe batch is made of it
    progress = Progress(**state["progress"])
    run.runtime.say(f"going on from {path} (step {progress.step})")
    return progress


def _restore(
    run: Run, engine: Engine, probe: Batch, same_world: bool, best: Path, path: Path, state: dict[str, Any]
) -> None:
    run.checkpoints.restore(engine, path, same_world)
    if (path / "best.safetensors").exists():
        with written(best, "the best weights"):
            from_main(lambda: shutil.copyfile(path / "best.safetensors", best))
    if state["loader"]["fingerprint"] != run.data.fingerprint:
        return  # other data were accepted: the probe batch is another one
    then, found = state["probe"], gather_objects(probe_loss(engine, probe))
    tolerance = 1e-4 if run.config.precision == "fp32" else 2e-2
    wrong = [(r, x) for r, x in enumerate(found) if not math.isclose(x, then, rel_tol=tolerance, abs_tol=1e-6)]
    if math.isfinite(then) and wrong:
        rank, now = wrong[0]
        raise everywhere(
            TrainingError(
                f"{path}: the probe batch had loss {then:.6g} when it was saved and has {now:.6g} after loading (rank {rank}): "
                "the weights are not those that were saved. Remove that checkpoint to go on from the one before"
            )
        )
