"""Moving-average copies (teachers): each follows a part of the method, on whatever share of it this rank holds.

The update is elementwise, so under ZeRO-3 a rank averages its own shards and nothing is gathered. Weights of 16 bits would round away
an update of a few thousandths: there the average itself is kept in float32 beside them, of the student's weights as `forward` uses them,
and the teacher's weights are its rounded copy.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.contract import Method
from models.parallel import gather


def pairs(method: Method, done: float) -> list[tuple[str, str, float]]:
    """(parameter of a teacher, parameter that it follows, momentum), in the order of the method's parameters.

    Raises:
        AssertionError: what `Method.teachers` says does not fit the method.
    """
    params, found = dict(method.named_parameters()), []
    for prefix, (source, momentum) in method.teachers(done).items():
        assert 0.0 <= momentum <= 1.0, f"teacher {prefix}: momentum {momentum} is not between 0 and 1"
        names = [n for n in params if n == prefix or n.startswith(prefix + ".")]
        assert names, f"teacher {prefix}: {method.name} has no such parameters"
        for name in names:
            followed = source + name.removeprefix(prefix)
            assert followed in params, f"teacher {name}: {method.name} has no parameter {followed} to follow"
            assert not params[name].requires_grad, f"teacher {name} is trained too; `enter` has to freeze it"
            found.append((name, followed, momentum))
    return found


class Teachers:
    """The averages of one engine. Made before DeepSpeed rounds or shards the weights; `share` is called when it has."""

    def __init__(self, method: Method, precision: str):
        self.method = method
        params, names = dict(method.named_parameters()), [n for n, *_ in pairs(method, 0.0)]
        sixteen = precision != "fp32"
        self._exact: dict[str, Tensor] = {n: params[n].detach().float().clone() for n in names} if sixteen else {}

    @property
    def apart(self) -> tuple[str, ...]:
        """Teachers whose average is kept beside their weights."""
        return tuple(self._exact)

    def share(self, rank: int) -> None:
        """Keeps of each average what this rank holds of the weights."""
        for name, whole in self._exact.items():
            self._exact[name] = self._mine(self.method.get_parameter(name), whole, rank)

    def _mine(self, p: nn.Parameter, whole: Tensor, rank: int) -> Tensor:
        place = _held(p)[0]
        mine = torch.zeros(place.shape, dtype=torch.float32, device=place.device)
        if hasattr(p, "ds_tensor"):
            put_shard(mine, whole, rank)
        else:
            mine.copy_(whole)
        return mine

    @torch.no_grad()
    def update(self, done: float) -> None:
        """teacher <- m teacher + (1 - m) student, m = m(done), for every parameter of each teacher; after a real step."""
        whole: list[nn.Parameter] = []
        for name, followed, momentum in pairs(self.method, done):
            teacher, student = self.method.get_parameter(name), self.method.get_parameter(followed)
            exact = self._exact.get(name)
            if exact is None:
                for mine, theirs in zip(_held(teacher), _held(student), strict=True):
                    mine.lerp_(theirs, 1.0 - momentum)
                continue
            places = _held(teacher)
            exact.lerp_(_held(student)[0].float(), 1.0 - momentum)
            places[0].copy_(exact)
            whole += [teacher] * (len(places) > 1)
        if whole:
            # ZeRO-3 keeps small parameters whole on every rank, and the float32 average of a rank is of its shard alone.
            whole[0].partition(whole)  # type: ignore[attr-defined]
            whole[0].all_gather(whole)  # type: ignore[attr-defined]

    def whole(self, name: str) -> Tensor | None:
        """The float32 average behind a teacher's weights, whole, where one is kept apart. All ranks must call."""
        exact = self._exact.get(name)
        if exact is None:
            return None
        p = self.method.get_parameter(name)
        if not hasattr(p, "ds_tensor"):
            return exact
        return gather(exact)[: p.ds_numel].view(p.ds_shape)  # type: ignore[attr-defined]

    def state(self) -> dict[str, Tensor]:
        """All averages, whole, in host memory. All ranks must call."""
        return {n: whole.cpu().clone() for n in self._exact if (whole := self.whole(n)) is not None}

    def load(self, values: Mapping[str, Tensor], rank: int) -> list[str]:
        """Takes this rank's share of whole averages. Returns names that `values` lacks or has in another shape; they stay as they were."""
        wrong = []
        for name in self._exact:
            p, value = self.method.get_parameter(name), values.get(name)
            if value is None or value.shape != getattr(p, "ds_shape", p.shape):
                wrong.append(name)
            else:
                self._exact[name] = self._mine(p, value, rank)
        return wrong


def put_shard(shard: Tensor, value: Tensor, rank: int) -> None:
    """This rank's equal share of a whole parameter, flat, padded where it ends (ZeRO-3)."""
    mine = value.reshape(-1)[rank * shard.numel() : (rank + 1) * shard.numel()]
    shard.data[: mine.numel()].copy_(mine)


def _held(p: nn.Parameter) -> list[Tensor]:
    """What this rank holds of a parameter: its shard under ZeRO-3, and the whole where that is kept too."""
    shard = getattr(p, "ds_tensor", None)
    if shard is None:
        return [p.data]
    whole = p.data.numel() == p.ds_numel  # type: ignore[attr-defined]
    # On one rank DeepSpeed may let both be the same memory, which must not be averaged twice.
    whole = whole and p.data.data_ptr() != shard.data_ptr()
    return [shard, p.data] if whole else [shard]
