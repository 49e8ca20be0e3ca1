"""One run, from its folder to its end. The door: `train_job` does what a `Job` says, and goes on where a run of before was stopped."""

from trainer.run.job import Job as Job
from trainer.run.job import Run as Run
from trainer.run.run import train_job as train_job
