"""Where a run stands in its order, as a checkpoint stores it: plain data that any number of ranks and workers goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shards.errors import DataError, Problem, bad
from shards.order.mix import Mix, MixPlan
from shards.order.plan import Plan
from shards.read.dataset import Dataset


def state_of(data: Dataset | Mix, plan: Plan | MixPlan, consumed: int) -> dict[str, Any]:
    """What is stored once the whole run, all ranks together, has used `consumed` samples."""
    epoch = consumed // plan.samples_per_epoch
    return {
        "seed": plan.seed,
        "epoch": epoch,
        "consumed": consumed,
        "fingerprint": data.fingerprint,
        "order_version": plan.order_version,
    }


def version_of(state: Mapping[str, Any]) -> int:
    """The version of the order that a state was stored under; states of before there were several do not name it."""
    return int(state.get("order_version", 1))


def place_of(
    data: Dataset | Mix, plan: Plan | MixPlan, state: Mapping[str, Any], accept_data: bool, accept: str
) -> tuple[int, int]:
    """(epoch, step) to go on from.

    Args:
        accept_data: go on although the data changed; the position is then rounded down to a step of this plan.
        accept: how the user says that, for the message.

    Raises:
        DataError: other data, another seed, another version of the order where that matters, or a position that is no step of this plan.
    """
    problems = []
    if state["fingerprint"] != data.fingerprint and not accept_data:
        what = f"the run was trained on data {state['fingerprint']}, this is {data.fingerprint}"
        problems.append(Problem(what, "data.path", f"give the data of the run, or accept the change with {accept}"))
    if state["seed"] != plan.seed:
        what = f"the run has seed {state['seed']}, this is {plan.seed}"
        problems.append(Problem(what, "seed", f"set seed={state['seed']}"))
    if plan.versioned and version_of(state) != plan.order_version:
        what = f"the run follows version {version_of(state)} of the order of large sets, this is {plan.order_version}"
        problems.append(Problem(what, "order_version", f"give order_version={version_of(state)}"))
    if problems:
        raise DataError(problems)
    return step_at(plan, int(state["consumed"]), round_down=accept_data)


def step_at(plan: Plan | MixPlan, consumed: int, round_down: bool = False) -> tuple[int, int]:
    """(epoch, step) after `consumed` samples of the whole run.

    Raises:
        DataError: that is no whole number of global batches.
    """
    epoch, into = divmod(consumed, plan.samples_per_epoch)
    if into % plan.global_batch and not round_down:
        what = f"{consumed} samples were consumed, which is no whole number of global batches of {plan.global_batch}"
        raise bad(what, "global_batch", "resume with the global batch of the run")
    return epoch, into // plan.global_batch
