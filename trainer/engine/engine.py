"""A method inside a DeepSpeed engine: what our config becomes there, and the few verbs the loop needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from models.contract import Batch, Encoded, Group, Method, Output
from models.layers.checkpointing import set_activation_checkpointing
from trainer.config.schema import Config
from trainer.engine import matmul, queues, tensors
from trainer.engine.compiling import compiled
from trainer.engine.optimizers import constants, make_optimizer, one_kernel, plain
from trainer.engine.teachers import Teachers
from trainer.runtime import Runtime

MAX_BUCKET, MIN_BUCKET = 50_000_000, 1_000_000


def split_batch(config: Config, world: int) -> tuple[int, int]:
    """(micro batch, accumulation) that give the global batch on this many ranks.

    Raises:
        UserError: the numbers do not divide; the nearest ones that do are named.
    """
    from trainer.errors import UserError

    G = config.global_batch
    if G % world:
        below, above = G - G % world, G - G % world + world
        good = f"{below} or {above}" if below else f"{above}"
        raise UserError(f"global_batch={G} cannot be shared by {world} ranks: use {good}, or another number of ranks")
    micro = config.micro_batch or G // world
    if G % (micro * world):
        fits = [m for m in range(1, G // world + 1) if (G // world) % m == 0]
        raise UserError(f"micro_batch={micro} x {world} ranks does not divide global_batch={G}: use one of {fits}")
    return micro, G // (micro * world)


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for k, v in over.items():
        out[k] = merged(out[k], v) if isinstance(v, Mapping) and isinstance(out.get(k), dict) else v
    return out


def persistence_threshold(trainable: int) -> int:
    """Largest tensor that ZeRO-3 leaves whole: DeepSpeed's 1e5, but less in a small model, where that would be most of it."""
    return min(100_000, max(64, trainable // 1000))


def bucket_size(trainable: int) -> int:
    """Elements of a communication bucket: an eighth of the model, within bounds, even (DeepSpeed halves it).

    At DeepSpeed's 5e8 a bucket would outweigh most models here; at the whole model ZeRO-2 would save no gradients.
    """
    elements = min(trainable, max(MIN_BUCKET, min(MAX_BUCKET, trainable // 8)))
    return elements + elements % 2


def deepspeed_config(
    config: Config, stage: str, world: int, trainable: int, cuda: bool, universal: bool
) -> dict[str, Any]:
    """The DeepSpeed dictionary of our config. Buckets follow the model (`bucket_size`), as the plan predicts."""
    micro, accumulation = split_batch(config, world)
    # Buckets follow what is trained: DeepSpeed holds a few of them beside the weights whatever the model's size.
    bucket = config.zero.bucket or bucket_size(trainable)
    zero: dict[str, Any] = {
        "stage": config.zero.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "overlap_comm": cuda,
        "contiguous_gradients": True,
    }
    if config.zero.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    if config.zero.stage == 3:
        zero["stage3_prefetch_bucket_size"] = bucket
        # Small tensors stay whole on every rank: gathering a bias costs a round trip and saves nothing.
        zero["stage3_param_persistence_threshold"] = persistence_threshold(trainable)
        if config.zero.offload_params == "cpu":
            zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    ours = {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        # Without ZeRO `update` clips by itself: it needs the norm before the step, to skip one that is not finite.
        "gradient_clipping": 0.0 if plain(config) else config.optim_of(stage).clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "fp16": {"enabled": config.precision == "fp16"},
        "steps_per_print": 2**62,  # our own log says it
        "checkpoint": {"load_universal": universal},
    }
    return merged(ours, config.deepspeed)


class Engine:
    """forward, backward, update: the loop's verbs. Weights in and out are float32 and whole."""

    def __init__(self, method: Method, config: Config, stage: str, runtime: Runtime, universal: bool = False):
        import deepspeed

        set_activation_checkpointing(config.activation_checkpointing)
        if said := matmul.choose(config.matmul, runtime.device):
            runtime.say(said)
        self.compiled = compiled(config.compile, method, runtime)
        self.config, self.stage, self.runtime = config, stage, runtime
        self.optim = config.optim_of(stage)
        method.to(runtime.device)
        self.groups: list[Group] = method.param_groups()
        assert self.groups, f"stage {stage} has nothing to train"
        self.trainable = sum(p.numel() for g in self.groups for p in g.params)
        self.parameters = sum(p.numel() for p in method.parameters())
        # Taken before DeepSpeed rounds the weights, cut when it has sharded them.
        self.teachers = Teachers(method, config.precision)
        self._trained = {id(p) for g in self.groups for p in g.params}
        cuda = runtime.device.type == "cuda"
        optimizer = make_optimizer(self.groups, self.optim, one_kernel(config, cuda))
        settings = deepspeed_config(config, stage, runtime.world, self.trainable, cuda, universal)
        self.deepspeed, *_ = deepspeed.initialize(model=method, optimizer=optimizer, config=settings)
        self.method: Method = self.deepspeed.module
        self.teachers.share(runtime.rank)
        self.accumulation = int(self.deepspeed.gradient_accumulation_steps())
        self.grad_norm = float("nan")
        self.at(0.0)

    def at(self, done: float) -> None:
        """Before a step: the share of the stage's updates that are made, for whatever of the method follows it."""
        self.done = done
        self.method.at(done)

    def forward(self, batch: Batch) -> Output:
        return self.deepspeed(batch)

    def accumulate(self, last: bool) -> None:
        """Before a micro batch: whether it is the last of its step, so that gradients are reduced after it."""
        self.deepspeed.set_gradient_accumulation_boundary(last)

    def backward(self, total: Tensor) -> None:
        """Gradients of one micro batch. A non-finite loss is made to poison every gradient, so that no rank updates."""
        # A NaN factor reaches every gradient, also of parameters that a non-finite term does not touch; the norm then tells all ranks.
        self.deepspeed.backward(total * torch.where(torch.isfinite(total.detach()), 1.0, torch.nan))

    def update(self, lr: float, rows: queues.Rows | None = None) -> bool:
        """Clips and applies the gradients, unless their global norm is not finite: then nothing changes, on any rank.

        After a real step teachers follow, and `rows` (`queues.enqueued` of the step's outputs) enter their queues.
        Returns whether the weights changed. The decision is joint: DeepSpeed reduces the norm over ranks, and without
        sharding every rank holds the same gradient.
        """
        for settings, group in zip(self.deepspeed.optimizer.param_groups, self.groups, strict=True):
            # All of them each time: a universal checkpoint gives every group the first one's weight decay back.
            decay = self.optim.weight_decay * group.decay_scale
            settings.update(lr=lr * group.lr_scale, weight_decay=decay, **constants(self.optim))
        # Without sharding DeepSpeed would apply a non-finite step: the norm is taken here, over gradients that are equal on all ranks.
        if plain(self.config):
            params = [p for g in self.groups for p in g.params]
            norm = torch.nn.utils.clip_grad_norm_(params, self.optim.clip or float("inf"))
            self.grad_norm = float(norm)
            if not torch.isfinite(norm):
                self.deepspeed.zero_grad()
                return False
        self.deepspeed.step()
        # With sharding the norm is DeepSpeed's, reduced over ranks while it steps; there is none where an overflow was found first.
        if not plain(self.config):
            norm_or_none = self.deepspeed.get_global_grad_norm()
            self.grad_norm = float("nan") if norm_or_none is None else float(norm_or_none)
        applied = bool(self.deepspeed.was_step_applied())
        # A teacher follows weights that moved: after a skipped step it would drift towards the student for nothing.
        if applied:
            self.teachers.update(self.done)
            queues.write(self.method, rows or {})
        return applied

    def untangle(self) -> None:
        """After a universal checkpoint: DeepSpeed's stage 3 gives all groups one step counter, which each would then advance."""
        inner = getattr(self.deepspeed.optimizer, "optimizer", None)
        for state in inner.state.values() if inner is not None else ():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].clone()

    def readings(self) -> dict[str, float]:
        """What the engine adds to the log of a step."""
        scale = {"loss_scale": float(self.deepspeed.optimizer.loss_scale)} if self.config.precision == "fp16" else {}
        return scale | ({} if self.compiled is None else self.compiled.readings())

    def trains(self, p: torch.nn.Parameter) -> bool:
        """Whether the optimizer has a hold of it."""
        return id(p) in self._trained

    def train(self, on: bool = True) -> None:
        self.deepspeed.train(on)

    def encode(self, batch: Batch) -> Encoded:
        return self.method.encode(batch)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter and buffer, whole, float32 where it trains; on rank 0 (elsewhere empty). All ranks must call."""
        out: dict[str, Tensor] = {}
        for name, p in self.method.named_parameters():
            # The float32 copy where the optimizer keeps one: bf16 weights rounded once more would not load back to the same state.
            value = tensors.master(self, name, p)
            with tensors.gathered(p) if value is None else nullcontext():
                if self.runtime.main:
                    out[name] = (p.data if value is None else value).detach().float().cpu().clone()
        if self.runtime.main:
            out |= {n: b.detach().cpu().clone() for n, b in tensors.buffers(self.method).items()}
        return out

    def close(self) -> None:
        """Takes DeepSpeed's hooks off, so that another engine can be built in this process."""
        if self.compiled is not None:
            self.compiled.close()
        self.deepspeed.destroy()
