"""A task and an encoder, opened and checked against each other before anything is trained. The doors: `open_task_data` opens the
task's data, `prepare` checks everything and gives the `Setting`, `describe` says what it comes to, `check_device` what this machine
lacks for it."""

from trainer.downstream.setting.describe import describe as describe
from trainer.downstream.setting.prepare import check_device as check_device
from trainer.downstream.setting.prepare import open_task_data as open_task_data
from trainer.downstream.setting.prepare import prepare as prepare
from trainer.downstream.setting.setting import Setting as Setting
