"""The Triton kernels of the selective scan under Triton's interpreter, which must be chosen before Triton is imported: a script.

    TRITON_INTERPRET=1 python -m tests.models.triton_scan

Prints, as JSON, the largest error of output and gradients by case, whether `triton_runs` believes the kernels, and whether it
believes them with a kernel that is wrong. Segments of 8 steps and blocks of 4 channels, since the interpreter takes its time.
"""

from __future__ import annotations

import json
import warnings
from functools import partial

import torch

from models.layers import scan, scan_triton
from tests.models.test_scan import inputs, run, sequential

# B, L, D, N and by how much the step sizes of the first and the last channel are multiplied.
CASES = {
    "one step": (2, 1, 3, 2, 1, 1),
    "one segment": (1, 8, 4, 2, 1, 1),
    "a rest of steps and of channels": (2, 9, 5, 3, 1, 1),
    "memories long and short": (1, 40, 2, 4, 1e-3, 1e2),
}


def by_triton(x, delta, A, Bs, Cs, D):
    return scan_triton.TritonScan.apply(x, delta, A, Bs, Cs) + x * D


def gaps(B: int, L: int, D: int, N: int, first: float, last: float) -> dict[str, float]:
    given = inputs(L, B, D, N)
    with torch.no_grad():
        given[1][:, :, 0] *= first
        given[1][:, :, -1] *= last
    pairs = zip(run(by_triton, given), run(sequential, given, exact=True), strict=True)
    each = [float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs]
    return dict(zip(("y", "x", "delta", "A", "B", "C", "D"), each, strict=True))


def half() -> float:
    """How far y of bfloat16 is from the same inputs in float64, and that everything comes back in bfloat16."""
    given = [t.detach().bfloat16().requires_grad_() for t in inputs(20, 1, 2)]
    y = by_triton(*given)
    grads = torch.autograd.grad(y.sum(), given)
    assert {y.dtype, *(g.dtype for g in grads)} == {torch.bfloat16}
    exact = sequential(*(t.detach().double() for t in given))
    return float((y - exact).abs().max() / exact.abs().max())


def main() -> None:
    warnings.simplefilter("ignore")
    scan_triton.S, scan_triton.W = 8, 4
    found = {"gaps": {name: gaps(*case) for name, case in CASES.items()}, "half": half()}
    scan._short = partial(scan._short, L=12, D=5, N=2)
    with torch.no_grad():
        found["believed"] = scan.triton_runs(torch.device("cpu"))
    scan.triton_runs.cache_clear()
    # Of two blocks of channels only the first is computed.
    scan_triton._grid = lambda x: (2, 1, 1)
    found["believed when wrong"] = scan.triton_runs(torch.device("cpu"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
