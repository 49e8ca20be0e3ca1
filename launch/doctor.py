"""What is installed, which kernels will run, and why: `python launch/doctor.py`. Exit status 1 when something needed is missing."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NEEDED = (
    "torch", "torchvision", "timm", "deepspeed", "webdataset", "submitit", "tensorboard", "torchmetrics", "tokenizers",
    "safetensors", "numpy", "pillow", "simplejpeg", "pydantic", "pyyaml", "pyarrow", "h5py", "scikit-learn",
)  # fmt: skip


def versions() -> tuple[list[str], bool]:
    """A line for each package that medpair needs, and whether all are there."""
    lines, complete = [], True
    for name in NEEDED:
        try:
            lines.append(f"  {name:<14} {version(name)}")
        except PackageNotFoundError:
            complete = False
            lines.append(f"  {name:<14} MISSING: pip install -e .")
    return lines, complete


def kernel(package: str, module: str, extra: str, instead: str, cuda: bool) -> str:
    """Whether an optional CUDA kernel will run, and what runs in its place."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return f"  {package:<14} not installed (pip install -e '.[{extra}]', docs/install.md): {instead} runs"
    if not cuda:
        return f"  {package:<14} {found}, CUDA only: {instead} runs on this machine"
    try:
        importlib.import_module(module)
    except Exception as e:
        return f"  {package:<14} {found} does not load ({type(e).__name__}: {str(e)[:80]}): {instead} runs"
    return f"  {package:<14} {found}: its kernel runs"


def scan_on_gpu(cuda: bool) -> str:
    """What computes selective scans on a GPU where mamba-ssm does not."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return f"  {'triton':<14} not installed (a CUDA build of PyTorch brings it): the chunked PyTorch scan runs on a GPU"
    if not cuda:
        return f"  {'triton':<14} {found}, CUDA only"
    import torch

    from models.layers.scan import triton_runs

    why = unless(lambda: triton_runs(torch.device("cuda", torch.cuda.current_device())))
    return f"  {'triton':<14} {found}: {why or 'selective scans on a GPU run in it where mamba-ssm is not'}"


def scan_on_cpu() -> str:
    """What computes long selective scans on a CPU."""
    try:
        found = version("numba")
    except PackageNotFoundError:
        return (
            f"  {'numba':<14} not installed (pip install -e '.[numba]', docs/install.md): the chunked PyTorch scan runs"
        )
    from models.layers.scan import numba_loads

    return f"  {'numba':<14} {found}: {unless(numba_loads) or 'long selective scans on a CPU run in it'}"


MACHINE_CODE = (
    "models.layers.scan_numba",
    "models.transforms.bicubic",
    "shards.format.jpeg_entry",
    "shards.format.jpeg_wide_entry",
)


def machine_code() -> str:
    """Where what numba compiles is kept, or why it is not."""
    from compiled.kept import NotKeptError, folder

    found = [spec for spec in map(importlib.util.find_spec, MACHINE_CODE) if spec and spec.origin]
    try:
        places = dict.fromkeys(str(folder(spec.name, str(spec.origin)).parent) for spec in found)
    except (NotKeptError, PackageNotFoundError) as e:
        return f"  {'compiled':<14} {e if isinstance(e, NotKeptError) else 'nothing: numba is not installed'}"
    return f"  {'compiled':<14} machine code is kept in {', '.join(places)}"


def jpegs_of_packs() -> str:
    """How `pack` sees that the JPEGs of a large set are whole."""
    from shards.format.jpeg_codes import why_not_quick
    from shards.pack.chunks import BY_CODES, how_checked

    return f"  {'pack':<14} {how_checked(why_not_quick())} (sets of {BY_CODES >> 20} MB of JPEGs and more)"


def films_decoded() -> str:
    """What decodes the grey films of a loader."""
    from shards.format.jpeg_own import why_not_own

    how = (
        f"by libjpeg-turbo alone: {why}"
        if (why := why_not_own())
        else "by medpair's own code (numba), to the same pixels"
    )
    return f"  {'films':<14} grey JPEGs are decoded {how}"


def views_filtered() -> str:
    """What filters the views of grey films."""
    from models.transforms.resampling import why_not_own

    why = why_not_own()
    how = f"by Pillow alone: {why}" if why else "by medpair's own code (numba), to Pillow's pixels"
    return f"  {'views':<14} of one channel are filtered {how}"


def products_on_cpu() -> str:
    """Where float32 matrix products of a CPU would run with `matmul=auto`, and how fast either way is."""
    from trainer.engine.matmul import speeds, why_not

    reason = why_not("cpu")
    if reason:
        return f"  {'matmul=auto':<14} PyTorch's own kernels run: {reason}"
    own, onednn = speeds()
    return (
        f"  {'matmul=auto':<14} float32 products run in oneDNN: {onednn:.0f} GFLOP/s a core, measured now, {onednn / own:.1f} times "
        f"those of matmul=torch, the default ({own:.0f})"
    )


def compiled_blocks(cuda: bool, tries: bool) -> str:
    """Whether `compile=auto` would compile blocks of networks here; `tries`: by compiling a small function, which takes seconds."""
    from trainer.engine.compiling import missing, why_not

    device = "cuda" if cuda else "cpu"
    reason = why_not(device) if tries else missing(device)
    if reason:
        return f"  {'compile=auto':<14} networks run uncompiled: {reason}"
    how = "a small function passed just now" if tries else "where a first small function passes (not tried now)"
    return f"  {'compile=auto':<14} blocks of networks are compiled{':' if tries else ''} {how}; compile=off is the default"


def attentions(cuda: bool) -> Iterator[str]:
    """Exact against Nystrom attention, measured here, and what follows for a recipe."""
    import torch

    from models.layers.crossover import crossover, pairs

    found = []
    for pair in pairs(torch.device("cuda" if cuda else "cpu")):
        found.append(pair)
        yield f"  {pair.tokens:>6} tokens   Nystrom {pair.nystrom * 1e3:7.1f} ms, exact {pair.exact * 1e3:7.1f} ms"
    if most := crossover(found):
        yield (
            f"  exact attention is as fast up to {most} tokens: method.attention=auto method.exact_tokens={most} (of systems "
            "with Nystrom attention), which is another network than the default; a run keeps this number wherever it goes on"
        )
    else:
        yield f"  Nystrom attention is faster at {found[0].tokens} tokens already"


def unless(works: Callable[[], bool]) -> str:
    """What `works` warns of when it is false; nothing when it is true."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return "" if works() else str(said[-1].message)


def machine(cuda: bool) -> list[str]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    lines = [f"  Python {platform.python_version()}, {platform.machine()}, {cores} cores, {memory:.0f} GB of memory"]
    if cuda:
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            lines.append(f"  GPU {i}: {p.name}, {p.total_memory / 1e9:.0f} GB, compute {p.major}.{p.minor}, nccl")
    else:
        built = torch.version.cuda
        why = f"PyTorch is built for CUDA {built}, but finds no driver or device" if built else "PyTorch is a CPU build"
        lines.append(f"  no GPU ({why}): DeepSpeed uses its CPU accelerator and gloo, fp32 and bf16, no fp16")
    return lines


def tools() -> list[str]:
    known = {
        "deepspeed": "the launcher",
        "sbatch": "Slurm jobs",
        "g++": "torch.compile on a CPU, and DeepSpeed's CPUAdam with offload on GPU machines",
    }
    lines = []
    for name, use in known.items():
        beside = Path(sys.executable).parent / name
        found = shutil.which(name) or (str(beside) if beside.exists() else None)
        lines.append(f"  {name:<14} {found or 'not on PATH'} ({use})")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="doctor.py", description=__doc__)
    parser.add_argument(
        "--attention", action="store_true", help="also measure up to how many tokens exact attention is the faster one"
    )
    parser.add_argument("--compile", action="store_true", help="also try whether torch.compile works here")
    args = parser.parse_args(argv)
    lines, complete = versions()
    print("packages\n" + "\n".join(lines))
    try:
        import torch

        cuda = torch.cuda.is_available()
        print("machine\n" + "\n".join(machine(cuda)))
    except ImportError as e:
        print(f"machine\n  PyTorch does not load: {e}")
        return 1
    print("kernels")
    print(kernel("xformers", "xformers.ops", "cuda", "PyTorch's scaled_dot_product_attention", cuda))
    print(kernel("mamba-ssm", "selective_scan_cuda", "mamba", "what comes next or the chunked PyTorch scan", cuda))
    print(scan_on_gpu(cuda))
    print(scan_on_cpu())
    print(machine_code())
    print(jpegs_of_packs())
    print(films_decoded())
    print(views_filtered())
    print(products_on_cpu())
    print(compiled_blocks(cuda, args.compile))
    if args.attention:
        print("attention of one bag (width 512, 8 heads, 256 landmarks, forward and backward)")
        for line in attentions(cuda):
            print(line, flush=True)
    print("tools\n" + "\n".join(tools()))
    from models.registry import method_names

    print(f"methods\n  {', '.join(method_names())}")
    print("all is well" if complete else "something is missing: see above")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
