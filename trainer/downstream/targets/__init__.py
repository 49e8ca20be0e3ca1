"""What a task's samples are asked for. The door for others: `read_targets(TASK, DATA, FIELDS)` gives the targets of every sample."""

from trainer.downstream.targets.read import read_targets as read_targets
