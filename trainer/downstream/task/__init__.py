"""What a task asks. The door for others: `build_task(NAME, WORDS)` gives the task of a command line, and its file."""

from trainer.downstream.task.read import build_task as build_task
