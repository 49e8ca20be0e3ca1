"""The training loop of one stage, from top to bottom. A step has fixed phases, in this order:

data      the next global batch, this rank's share of it
forward   loss terms of each micro batch, already values over all ranks (models/parallel.py)
backward  gradients; a non-finite loss poisons them on purpose
agree     one small all-reduce: is every loss finite, was a stop asked for
update    or skip, on all ranks alike; the learning rate moves with updates, not with steps
evaluate  every so many steps (an epoch, in pre-training), where there is a validation split
probe     every so many steps, where live probes are asked for and cost little enough
log       one line a step
save      every so many steps, at the end, and when stopping; what is saved may be written while the next steps run

Long because: `train` is the one story of the project; its phases stand in one visible order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from models.contract import Output, Stage
from models.contract.bags import counting_rows
from models.parallel import gather
from trainer.engine.choice import Evaluation, better
from trainer.engine.engine import Engine
from trainer.engine.feed import EvalLoader, StepLoader, on_device
from trainer.engine.queues import enqueued
from trainer.engine.schedule import learning_rate
from trainer.errors import Stopped, TrainingError
from trainer.health.spikes import Spikes
from trainer.health.steps import BadSteps, collapse_readings
from trainer.health.watchdog import off
from trainer.runtime import Runtime, StopFlag, agree_sum, peak_memory
from trainer.tracking.tracker import Tracker


@dataclass
class Progress:
    """Where a run stands; the part of a checkpoint's state that the loop moves."""

    stage: int = 0
    step: int = 0
    """Steps of the whole run."""
    stage_step: int = 0
    """Steps of this stage: global batches taken, skipped ones among them."""
    updates: int = 0
    """Updates of this stage."""
    consumed: int = 0
    """Samples of this stage taken from its order."""
    bad_steps: list[tuple[int, list[str]]] = field(default_factory=list)
    """(step, sample keys) of every skipped step."""
    best: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    """Held-back loss of the best one, where the evaluation gives one: it breaks ties."""
    rollbacks: int = 0
    """Times that the run went back before a spike; the steps that it leaves out stand in left-out.json."""
    recent: list[float] = field(default_factory=list)
    """Losses of this stage that a spike stands apart from, where spikes are watched for."""
    in_row: int = 0
    """Bad steps in a row up to here."""

    def next_stage(self, goes_on: bool = False) -> None:
        """`goes_on`: the next stage is of the same training, whose best evaluation stays the best."""
        self.stage, self.stage_step, self.updates, self.consumed = self.stage + 1, 0, 0, 0
        self.recent, self.in_row = [], 0
        if not goes_on:
            self.best = self.best_step = self.best_loss = None

    def state(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class StageRun:
    """One stage of one run: what the loop needs besides the engine."""

    stage: Stage
    steps: int
    epoch_steps: int
    evaluate_every: int
    save_every: int
    loader: StepLoader
    keys: Callable[[int, int], list[str]]
    validation: EvalLoader | None
    evaluate: Callable[[Engine, EvalLoader, Runtime], dict[str, float]]
    chance: dict[str, float]
    save: Callable[[], None]
    keep_best: Callable[[], None]
    show: Callable[[], None]
    done: Callable[[int], float]
    """Share of the schedule's updates that are made, from those of this stage (StagePlan.done)."""
    at: Callable[[str, int], None] = off
    """Told at the beginning of each phase (trainer/health/watchdog.py)."""
    schedule_start: int = 0
    schedule_steps: int | None = None
    """As in StagePlan: steps of the same training before this stage, and of all of it."""
    left_out: frozenset[int] = frozenset()
    """Steps of the run whose samples are taken from the order and not trained on."""
    spikes: Spikes | None = None
    unsaved: Callable[[], bool] = lambda: False
    """Whether a save that this rank was still writing has failed; the next `save` raises it."""
    live: Live | None = None


class Live(Protocol):
    """Looks at the encoder while it trains, which change nothing of it (trainer/probe/live.py)."""

    def wants(self, step: int, step_s: float) -> bool: ...
    def evaluate(self, engine: Engine) -> dict[str, float]: ...


def train(
    run: StageRun,
    engine: Engine,
    runtime: Runtime,
    progress: Progress,
    tracker: Tracker,
    stop: StopFlag,
    bad: BadSteps,
) -> None:
    """Trains from `progress.stage_step` to the stage's end.

    Raises:
        Stopped: a stop was asked for; the run is saved.
        RollBack: the training lost its way; it is to go on from a checkpoint before.
        TrainingError: too many non-finite steps, or a save that failed.
    """
    if progress.stage_step >= run.steps:
        return
    engine.train()
    engine.at(run.done(progress.updates))
    # The order is a function of (seed, epoch, step): where a stage stands is enough to go on, no iterator's state is kept.
    first = divmod(run.schedule_start + progress.stage_step, run.epoch_steps)
    steps = iter(on_device(run.loader.iterate(*first), runtime.device))
    global_batch = engine.config.global_batch
    while progress.stage_step < run.steps:
        # ---- data
        run.at("data", step := progress.step + 1)
        began = time.perf_counter()
        data = next(steps)
        waited = time.perf_counter() - began

        # ---- forward, backward
        run.at("forward and backward", step)
        # A step that is left out is a skipped one whose reason is known before: it passes through the other phases as they do.
        left_out = step in run.left_out
        outputs: list[Output] = []
        computed = real = 0  # rows of bags
        for i, micro in enumerate(() if left_out else data.micro):
            # Gradients are reduced once a step, after its last micro batch: a reduction each would cost as many times the traffic.
            engine.accumulate(last=i == len(data.micro) - 1)
            with counting_rows() as counted:
                output = engine.forward(micro)
            engine.backward(output.total)
            outputs.append(output)
            computed, real = computed + counted.computed, real + counted.real
        terms = {"loss": math.nan} if left_out else _means(outputs)
        # All ranks take the reading at the same step, since it gathers.
        monitored = not left_out and step % engine.config.health.monitor_every == 0
        features = _features(outputs) if monitored else {}
        rows = {} if left_out else enqueued(outputs)
        del outputs  # their graphs are freed before the optimizer asks for memory

        # ---- agree
        run.at("agree", step)
        # One small sum for all questions: what one rank alone knows (its loss, a signal it got, a sample it replaced) must lead all
        # ranks to the same branch, or the next collective waits for ever.
        finite = left_out or math.isfinite(terms["loss"])
        votes = agree_sum(
            {
                "bad": float(not finite),
                "spike": float(run.spikes is not None and run.spikes.above(terms["loss"])),
                "stop": float(stop.asked is not None),
                "unsaved": float(run.unsaved()),
                "probe": float(run.live is not None and run.live.wants(step, time.perf_counter() - began)),
                "replaced": float(len(data.bad)),
                "computed": float(computed),
                "real": float(real),
            },
            runtime.device,
        )

        # ---- update, or skip
        run.at("update", step)
        # By updates, not steps: a skipped step must not move the schedule, or the warm-up would pass without training.
        lr = learning_rate(engine.optim, run.schedule_start + progress.updates, run.schedule_steps or run.steps)
        # No branch on `votes["bad"]` here: the poisoned gradients make the norm non-finite, and with it every rank skips by the same rule
        # as for a gradient that overflowed while its loss did not.
        # Teachers and queues move with the weights: a skipped step leaves them, and what it wanted to enter is dropped.
        applied = not left_out and engine.update(lr, rows)
        if votes["bad"] and applied:
            raise TrainingError("a step with a non-finite loss changed the weights: this is a bug in medpair")
        assert applied or left_out or votes["bad"] or not math.isfinite(engine.grad_norm), "a good step was not applied"
        # A skipped step counts: its samples were taken from the order, and a resume must not take them again.
        progress.step += 1
        progress.stage_step += 1
        progress.consumed += global_batch
        progress.updates += int(applied)
        engine.at(run.done(progress.updates))

        # ---- evaluate
        validated: dict[str, float] = {}
        so_far = run.schedule_start + progress.stage_step
        # The last step is always looked at: the weights that the stage ends with have a number of their own.
        evaluates = so_far % run.evaluate_every == 0 or progress.stage_step == run.steps
        if run.validation is not None and evaluates:
            run.at("evaluate", step)
            validated = run.evaluate(engine, run.validation, runtime)
            if _better(run.stage, validated, progress):
                assert run.stage.select is not None
                progress.best, progress.best_step = validated[run.stage.select[0]], progress.step
                progress.best_loss = validated.get("loss")
                run.keep_best()

        # ---- probe
        # By rank 0's clock alone: the time that is left for it differs from rank to rank.
        probed: dict[str, float] = {}
        if run.live is not None and votes["probe"]:
            run.at("evaluate", step)
            probed = run.live.evaluate(engine)

        # ---- log
        run.at("log", step)
        took = time.perf_counter() - began
        tracker.step(
            {
                "step": progress.step,
                "stage": run.stage.name,
                "epoch": (so_far - 1) / run.epoch_steps,
                **terms,
                **{f"chance/{k}": v for k, v in run.chance.items()},
                **{f"val/{k}": v for k, v in validated.items()},
                **probed,
                **(collapse_readings(features) if applied else {}),
                "lr": lr,
                "grad_norm": math.nan if left_out else engine.grad_norm,
                "samples_per_s": global_batch / took,
                "data_wait": waited / took,
                "peak_memory": peak_memory(runtime.device),
                "keys": data.keys_hash,
                "skipped": not applied,
                "skipped_steps": len(bad.seen) + int(not applied and not left_out),
                **({"left_out": True} if left_out else {}),
                "replaced_samples": int(votes["replaced"]),
                **({"padding": 1 - votes["real"] / votes["computed"]} if votes["computed"] else {}),
                **engine.readings(),
            }
        )
        if evaluates and applied:  # what is not finite has no picture, and a step that is skipped leaves none
            run.at("show", step)
            run.show()
        for key, why in data.bad:
            print(f"[rank {runtime.rank}] bad sample {key} replaced: {why}", flush=True)
        # After the line is logged, so that the step that ends a run for too many bad ones stands in metrics.jsonl.
        skipped = not applied and not left_out and not _loss_scale_moves(engine)
        if skipped:
            keys = run.keys(data.epoch, data.step)
            runtime.say(f"step {progress.step}: not finite, skipped on all ranks; its samples: {', '.join(keys)}")
            bad.add(progress.step, keys)
            progress.bad_steps = list(bad.seen)
        # Before the save: a checkpoint of a training that has lost its way would be the one to go back to.
        if run.spikes is not None and not left_out:
            run.spikes.add(step, terms["loss"], skipped or votes["spike"] > 0)

        # ---- save, stop
        # `votes`, not this rank's own flag: a signal may reach one rank alone, and a save is of all ranks.
        ended = progress.stage_step == run.steps
        # A save that failed while it was being written ends the run here: its error is the next one's.
        if ended or votes["stop"] or votes["unsaved"] or progress.stage_step % run.save_every == 0:
            run.at("save", step)
            run.save()
        if votes["stop"] and not ended:
            asked = f"{stop.asked} to rank {runtime.rank}" if stop.asked else "asked of another rank"
            raise Stopped(f"stopped at step {progress.step} ({asked})")


def _means(outputs: list[Output]) -> dict[str, float]:
    """Loss, terms and diagnostics of a step: means over its micro batches, fetched from the device at once."""
    rows: list[Tensor] = []
    for out in outputs:
        values = [out.total, *out.losses.values(), *out.diagnostics.values()]
        rows.append(torch.stack([v.detach().float().reshape(()) for v in values]))
    # Fetched as one tensor: each `.item()` would wait for the device. Summed in float64, so that the mean of equal values is that value.
    names = ["loss", *(f"loss/{k}" for k in outputs[0].losses), *outputs[0].diagnostics]
    return dict(zip(names, torch.stack(rows).double().mean(0).tolist(), strict=True))


def _features(outputs: list[Output]) -> dict[str, Tensor]:
    return {k: gather(torch.cat([o.features[k].detach().float() for o in outputs])) for k in outputs[0].features}


def _better(stage: Stage, values: dict[str, float], progress: Progress) -> bool:
    if stage.select is None:
        return False
    name, direction = stage.select
    if name not in values:
        raise TrainingError(f"stage {stage.name} selects on '{name}', evaluation gave {', '.join(values)}")
    best = None if progress.best is None else Evaluation(progress.best, progress.best_loss)
    return better(Evaluation(values[name], values.get("loss")), best, direction)


def _loss_scale_moves(engine: Engine) -> bool:
    """Under fp16 an overflow is how the loss scale finds its level: not a bad step until the scale is at its floor."""
    return engine.config.precision == "fp16" and float(engine.deepspeed.optimizer.loss_scale) > 1.0
