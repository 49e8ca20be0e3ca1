"""A run from its configuration to its weights: stages in order, each resumed where a checkpoint left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config.schema import out_folder
from trainer.health.spikes import RollBack
from trainer.health.steps import BadSteps
from trainer.health.watchdog import Watchdog
from trainer.loop import Progress
from trainer.run.job import Job, Run
from trainer.run.restore import progress_of
from trainer.run.stage import train_stage
from trainer.runtime import Runtime, StopFlag, agree_on_data, from_main
from trainer.state import left_out
from trainer.state.checkpoint import Checkpoints
from trainer.state.run_folder import RunFolder
from trainer.tracking.tracker import Tracker


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
    run.progress = progress_of(run, *found) if found is not None else Progress()
    run.progress.rollbacks = len(from_main(lambda: left_out.windows(run.out)))
    total = sum(p.steps for p in run.plans)
    log = run.config.log
    tracker = Tracker(run.out, run.runtime, run.progress.step, total, log.every, log.tensorboard)
    bad = BadSteps(run.config.health.max_bad_steps, [(s, k) for s, k in run.progress.bad_steps])
    try:
        while run.progress.stage < len(run.plans):
            if run.plans[run.progress.stage].steps:
                train_stage(run, tracker, bad, found)
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
