"""What a task asks that its encoder does not have, and settings that leave nothing to train."""

from __future__ import annotations

from models.contract import Method
from models.decoders.build import decoder_of, make_decoder
from models.layers.batch_norm import holds_batch_norm
from models.registry import baseline_names
from trainer.downstream.samples import COX, NORMS, check_batch
from trainer.downstream.setting.setting import Setting
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import check_split, fitted
from trainer.downstream.task.by_encoder import FROZEN
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import batch_size, check_thaw, engine_config, length
from trainer.errors import UserError


def check_learns(task: Task, cls: type[Method], name: str) -> None:
    """Refuses a frozen encoder of a system that has no pre-training: it would be a random one."""
    if cls.outline or name in baseline_names():
        return
    if task.mode in FROZEN or task.protocol.freeze == "encoder":
        asked = f"mode: {task.mode}" if task.mode in FROZEN else "protocol.freeze=encoder"
        raise UserError(
            f"{asked}: {name} learns from a task's labels alone, its frozen encoder would be a random one; "
            "use mode=finetune without protocol.freeze"
        )


def check_own_head(task: Task, encoder: Method) -> None:
    """Refuses sizes for a head that is the method's own."""
    own = task.output.head == "auto" and type(encoder).task_head is not Method.task_head
    if own and (given := sorted(task.output.model_fields_set & {"norm", "hidden", "dropout"})):
        raise UserError(
            f"output.{', output.'.join(given)}: {encoder.name} has a head of its own, which takes none of them; "
            "give output.head=linear, mlp or bag, or leave them out"
        )


def check_own_decoder(task: Task, encoder: Method) -> list[str]:
    """What of `output` is left out for a decoder that is the method's own, as lines.

    Raises:
        UserError: keys of another decoder.
    """
    o = task.output
    if not encoder.draws_masks:
        return []
    decoder_of(type(encoder), o.decoder)
    if o.auxiliary:
        raise UserError(
            f"output.auxiliary: the decoder of {encoder.name} is its own and has none; set output.auxiliary=0"
        )
    # A task's file gives a width for all systems that are compared on it.
    given = "width" in o.model_fields_set
    return [f"output.width: left out, {encoder.name} draws masks with a decoder of its own"] * given


def check_trainable(setting: Setting, probe: Method) -> None:
    task, train = setting.task, setting.splits[setting.task.data.train]
    cox = task.kind == "survival" and task.output.survival == "cox"
    compares = COX if cox else NORMS if _norms(task, probe) else None
    for seed in task.protocol.seeds:
        chosen = labelled(task, setting.data, setting.targets, train, seed)
        if wrong := check_split(task, setting.targets, chosen, task.data.train):
            raise UserError(wrong)
        fitted(task, setting.targets, chosen)
        if setting.finetunes:
            batch = batch_size(task, len(chosen), setting.world)
            config = engine_config(
                task,
                setting.source.method_name,
                setting.out,
                seed,
                task.protocol.lr[0],
                batch,
                1,
                str(setting.data.path),
            )
            check_batch(config, compares, setting.world)
            check_thaw(task, len(chosen) // batch, length(task, len(chosen), batch))
    if task.protocol.freeze == "genes" and not probe.parts("genes"):
        raise UserError(
            f"protocol.freeze=genes: the encoder of {setting.source.method_name} has no gene side; use none or encoder"
        )


def _norms(task: Task, probe: Method) -> bool:
    """Whether batch norms are trained, in the encoder or in what draws its masks; nothing is written yet.

    Raises:
        MethodError: no decoder of the task's can be made for this encoder.
    """
    encoder = task.protocol.freeze != "encoder" and holds_batch_norm(probe)
    if task.kind != "segmentation":
        return encoder
    o = task.output
    decoder = make_decoder(
        probe, o.decoder, width=o.width, queries=o.queries, mask_token=o.mask_token, gene_dim=8, outputs=len(task.masks)
    )
    return encoder or holds_batch_norm(decoder)
