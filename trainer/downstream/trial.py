"""One training of a setting: a seed and a learning rate, as a job of the ordinary loop.

OUT/seed-0/lr-0.001/      config.json, metrics.jsonl, checkpoints/ while it runs, stages/finetune.safetensors,
                          point.json when it is done: the best validation value and its step
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.contract import Stage
from models.finetuned import FROZEN, STAGE, Downstream
from trainer.config.schema import Config, Data, Optim, StageConfig, by_todays_names
from trainer.config.shared import settings_of
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.predict import predict
from trainer.downstream.samples import TaskSamples
from trainer.downstream.targets.read import Targets, targets_of_split
from trainer.downstream.task.schema import Task
from trainer.engine.choice import Evaluation, best_evaluation
from trainer.engine.engine import Engine
from trainer.engine.feed import EvalLoader
from trainer.errors import UserError
from trainer.plan import StagePlan
from trainer.run import Job, Run, train_job
from trainer.runtime import Runtime, StopFlag, barrier
from trainer.state.files import write_atomic
from trainer.tracking.metrics_file import read_metrics


@dataclass(frozen=True)
class Trial:
    """val: the best validation value; step: where it was, of so many steps; seconds: of all steps, evaluation included.

    val_loss is the loss of that evaluation, the `look`-th of so many `looks`; `flat` says that all had one value, so that it chose nothing.
    """

    seed: int
    lr: float
    val: float
    step: int
    steps: int
    epoch: float
    seconds: float
    val_loss: float | None = None
    look: int = 0
    looks: int = 0
    flat: bool = False
    code: tuple[str, ...] = ()
    """Versions of the code that trained it (code.code_hash)."""


def engine_config(
    task: Task, method_name: str, out: Path, seed: int, lr: float, batch: int, steps: int, path: str
) -> Config:
    """The task's protocol as the engine's configuration."""
    p = task.protocol
    return Config(
        method_name=method_name,
        out=str(out),
        seed=seed,
        steps=steps,
        global_batch=batch,
        micro_batch=p.micro_batch if p.micro_batch and p.micro_batch <= batch else None,
        optim=Optim(
            kind=p.optimizer,
            lr=lr,
            betas=p.betas,
            weight_decay=p.weight_decay,
            warmup=p.warmup,
            schedule=p.schedule,
            clip=p.clip,
        ),
        data=Data(
            path=path,
            split=task.data.train,
            val_split=task.data.val,
            workers=task.data.workers,
            prefetch=task.data.prefetch,
            max_bad_samples=task.data.max_bad_samples,
            exact_decode=True,  # what is compared with other tools is what any of them decodes
        ),
        stages={STAGE: StageConfig(optim={"lr": lr * p.thaw_lr})} if p.freeze_epochs else {},
        **settings_of(task),
    )


def stage_plans(task: Task, stages: Sequence[Stage], per_epoch: int, steps: int) -> list[StagePlan]:
    """One training as its stages: with `protocol.freeze_epochs` a first one, in which the encoder stands still, and the rest.

    Order and schedule are those of one training; the best evaluation of both parts is kept, the second begins where the first ended.
    """
    every = max(1, steps // task.protocol.evaluations)
    frozen = check_thaw(task, per_epoch, steps)
    if not frozen:
        return [StagePlan(stages[0], per_epoch, steps, evaluate_every=every)]
    first, second = stages
    return [
        StagePlan(first, per_epoch, frozen, every, schedule_steps=steps, carry="last"),
        StagePlan(second, per_epoch, steps - frozen, every, schedule_start=frozen, schedule_steps=steps),
    ]


def check_thaw(task: Task, per_epoch: int, steps: int) -> int:
    """Steps in which the encoder stands still.

    Raises:
        UserError: nothing is left for the rest.
    """
    frozen = task.protocol.freeze_epochs * per_epoch
    if frozen and frozen >= steps:
        raise UserError(
            f"protocol.freeze_epochs={task.protocol.freeze_epochs}: {frozen} of {steps} steps, so nothing is left to train the encoder "
            "in; give fewer, more steps, or protocol.freeze=encoder"
        )
    return frozen


def batch_size(task: Task, samples: int, world: int) -> int:
    """The protocol's batch, or the most that the labelled samples fill on this many ranks.

    Raises:
        UserError: fewer samples than ranks, or a batch that the ranks do not share.
    """
    wanted = task.protocol.batch
    if wanted <= samples:
        return wanted
    fits = samples - samples % world
    if not fits:
        raise UserError(
            f"{samples} labelled training samples for {world} ranks: use fewer ranks, or more labels (protocol.fraction)"
        )
    return fits


def length(task: Task, samples: int, batch: int) -> int:
    """Steps of a training."""
    p = task.protocol
    return max(p.min_steps, p.steps or (p.epochs or 1) * (samples // batch))


@dataclass
class Training:
    """What the points of a seed share. `build` gives the method with its initial weights; `about` is all that decides the result."""

    task: Task
    method_name: str
    data: TaskSamples
    targets: Targets
    build: Callable[[], Downstream]
    about: dict[str, Any]

    def run(self, out: Path, seed: int, lr: float, runtime: Runtime, stop: StopFlag) -> Trial:
        """Trains, goes on, or takes what is done.

        Raises:
            Stopped: a stop was asked for and the point is saved.
            UserError: the folder holds another training.
        """
        task, runs = self.task, self.data.samples
        batch = batch_size(task, runs, runtime.world)
        config = engine_config(
            task, self.method_name, out, seed, lr, batch, length(task, runs, batch), self.data.paths[0]
        )
        resolved = {**config.model_dump(mode="json"), "about": self.about}
        found = finished(out, resolved, task.resume.accept_code)
        if found is not None:
            return found
        stages = self.build().stages()
        assert config.steps is not None
        plans = stage_plans(task, stages, self.data.plan(config, stages[0]).steps_per_epoch, config.steps)
        self.data.check(config, stages[0], runtime.world)
        job = Job(
            config,
            resolved,
            self.data,
            plans,
            f"{task.name}: {self.method_name}, seed {seed}, lr {lr:g}: {config.steps} steps of {batch} over {runs} labelled samples",
            build=lambda _: self.build(),
            finish=lambda run, tracker, step: self._finish(run, seed, lr),
            evaluate=self._evaluate,
        )
        train_job(job, runtime, stop)
        barrier()
        done = finished(out, resolved, task.resume.accept_code)
        assert done is not None, f"{out} was trained and has no point.json"
        return done

    def _evaluate(self, engine: Engine, loader: EvalLoader, runtime: Runtime) -> dict[str, float]:
        engine.train(False)
        assert isinstance(engine.method, Downstream)
        assert self.data.val_subset is not None
        targets = targets_of_split(self.task, self.targets, self.data.val_subset.indices, self.task.data.val)
        found = predict(engine.method, loader, self.data.dataset, targets, runtime)
        engine.train()
        return {name: METRICS[name].compute(found.predictions) for name in metric_names(self.task)} | {
            "loss": found.loss
        }

    def _finish(self, run: Run, seed: int, lr: float) -> None:
        """Notes the best evaluation; the checkpoints have done their work."""
        primary = METRICS[metric_names(self.task)[0]]
        all_rows = read_metrics(run.out)
        rows = [r for r in all_rows if not math.isnan(r.get(f"val/{primary.name}", math.nan))]
        if not rows:
            raise UserError(
                f"{run.out}: {primary.name} had no value on split '{self.task.data.val}': take another metric, or a larger split"
            )
        best = rows[
            best_evaluation(
                [Evaluation(r[f"val/{primary.name}"], r.get("val/loss")) for r in rows], primary.higher_is_better
            )
        ]
        values = [r[f"val/{primary.name}"] for r in rows]
        content = {
            "seed": seed,
            "lr": lr,
            "val": best[f"val/{primary.name}"],
            "step": best["step"],
            "steps": run.progress.step,
            "epoch": best["epoch"],
            "seconds": sum(run.config.global_batch / r["samples_per_s"] for r in all_rows),
            "val_loss": None if math.isnan(loss := best.get("val/loss", math.nan)) else loss,
            "look": rows.index(best) + 1,
            "looks": len(rows),
            "flat": len(rows) > 1 and min(values) == max(values),
            "resolved": run.resolved,
        }
        write_atomic(run.out / "point.json", json.dumps(content, indent=1).encode())
        shutil.rmtree(run.out / "checkpoints", ignore_errors=True)
        for name in (f"{STAGE}-best", FROZEN, f"{FROZEN}-best"):
            (run.out / "stages" / f"{name}.safetensors").unlink(missing_ok=True)


def finished(out: Path, resolved: dict[str, Any], accept_code: bool = False) -> Trial | None:
    """The point that `out` holds, if it is done and of this configuration (`accept_code`: by whatever version of the code)."""
    from trainer.config.schema import differences
    from trainer.state.run_folder import CODE

    path = out / "point.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); remove {out} to train it again") from e
    stored = by_todays_names(content.pop("resolved"))
    changed = differences(stored, json.loads(json.dumps(resolved)), CODE if accept_code else ())
    if changed:
        raise UserError(
            [f"{out} holds a training with another configuration; {line}" for line in changed]
            + ["give another out=FOLDER, or remove that folder"]
            + ["resume.accept_code=true takes what another version of the code trained"]
            * any(line.startswith(CODE) for line in changed)
        )
    about = stored.get("about", {})
    return Trial(**content, code=(*about.get("code_before", ()), *filter(None, [about.get("code")])))


def metric_names(task: Task) -> list[str]:
    """The primary metric first; with several structures, those of each by itself last."""
    from trainer.downstream.metrics.table import DEFAULTS, STRUCTURED, metric_of

    names = [task.metric or DEFAULTS[task.kind][0], *(task.metrics or DEFAULTS[task.kind])]
    known = [m.name for m in task.masks] if task.kind == "segmentation" and len(task.masks) > 1 else []
    if metric_of(names[0], task.kind).ideal is not None:
        raise UserError(
            f"metric={names[0]}: it says whether probabilities are right, not which system is better, and nothing is chosen by it; choose "
            f"by metric={DEFAULTS[task.kind][0]}, and list it under `metrics`"
        )
    for name in names:
        metric_of(name, task.kind)
        if (part := name.partition("/")[2]) and part not in known:
            has = ", ".join(known) or "one mask, of which the metric is"
            raise UserError(f"metric {name}: task {task.name} has no structure '{part}' (it has: {has})")
    parts = [f"{n}/{part}" for n in names if n in STRUCTURED for part in known]
    return list(dict.fromkeys([*names, *parts]))
