"""What would be done, in words: what a dry run prints."""

from __future__ import annotations

from trainer.downstream.setting.setting import Setting


def describe(setting: Setting) -> str:
    task, n = setting.task, {k: len(v) for k, v in setting.splits.items()}
    p = task.protocol
    share = f"{p.shots} patients a class" if p.shots else f"{100 * p.fraction:g} % of the training patients' labels"
    runs = len(p.seeds) * (len(p.lr) if setting.finetunes else 1)
    zeroshot = not task.learns
    lines = [
        f"{task.name} ({task.kind}): {setting.source.method_name} from {setting.source.kind}, {task.mode}, "
        f"reads {', '.join(setting.fields)}",
        *([f"  masks are drawn by {setting.decoder}"] if setting.decoder else []),
        *(f"  {line}" for line in setting.meaning),
        f"  {'no label is learned from' if zeroshot else share}; samples: {', '.join(f'{k} {v}' for k, v in n.items())}",
        *([] if zeroshot else [f"  {runs} trainings: seeds {list(p.seeds)}, learning rates {list(p.lr)}"]),
        f"  metrics {', '.join(setting.metrics)}",
        *([f"  a training has {setting.steps(p.seeds[0])} steps"] if setting.finetunes else []),
        *([f"  {len(setting.new)} tensors of the encoder are new, in no file"] if setting.new else []),
        f"  leak check: {setting.leak.note}",
        f"  out {setting.out}",
    ]
    lines += [f"  {k} samples take no part: {why}" for why, k in setting.targets.left_out.items()]
    return "\n".join(lines + [f"  {note}" for note in setting.targets.notes])
