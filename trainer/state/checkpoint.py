"""Checkpoints of a run: saved together, complete or not there, verified before use.

    out/checkpoints/step-00000100/
        engine/*.pt         DeepSpeed's shards, one a rank and the module's
        averages.pt         float32 averages behind the weights of teachers, where those have 16 bits
        rank-00000.pt       random states of a rank, and its buffers where they are not those of rank 0
        state.json          progress, loader state, config, data fingerprint, code version, loss of the probe batch, tensors' hashes
        best.safetensors    best weights so far, in a stage that selects
        manifest.json       size and SHA-256 of every file; written last
    out/checkpoints/latest  the newest one's name, for people

A save writes `.tmp-step-...` and renames it when every rank has flushed its files, so a crash anywhere leaves the last complete
checkpoint alone. State is plain data, and our own files load without executing anything; DeepSpeed's shards are pickles, so
take checkpoints only from runs you trust.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from torch import Tensor

from trainer.config.shared import Checkpoint
from trainer.engine import no_share, tensors
from trainer.engine.engine import Engine
from trainer.errors import TrainingError, UserError, everywhere
from trainer.runtime import Runtime, barrier, from_main, gather_objects, random_states, restore_random_states
from trainer.state import fence, files

ENGINE = "engine"
TENSORS = "tensors"  # of state.json: the hash of every parameter and buffer of rank 0
AVERAGES = "averages.pt"
OWN = "buffers"  # of a rank's file: its buffers that are not those of rank 0


class _RecordingEngine(TorchCheckpointEngine):
    """DeepSpeed's writer, but every file is flushed and hashed, and an error is kept for all ranks to hear of.

    An exception inside DeepSpeed's save would leave the other ranks waiting at its barrier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Path] = []
        self.errors: list[str] = []

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._keep_error(lambda: os.makedirs(path, exist_ok=exist_ok))

    def save(self, state_dict: object, path: str) -> None:
        self._keep_error(lambda: self._write(state_dict, path))

    def _write(self, state: object, path: str) -> None:
        torch.save(state, path)
        files.sync(Path(path))
        self.written.append(Path(path))

    def _keep_error(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as e:
            self.errors.append(f"{type(e).__name__}: {e}")


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, out: Path, policy: Checkpoint, runtime: Runtime):
        self.folder, self.policy, self.runtime = out / "checkpoints", policy, runtime

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def complete(self) -> list[Path]:
        """Published checkpoints, newest first (not verified)."""
        return sorted((p for p in self.folder.glob("step-*") if p.is_dir()), reverse=True)

    # ---------------------------------------------------------------------------------------------------------- save

    def save(self, engine: Engine, step: int, state: Mapping[str, Any], best: Path | None = None) -> Path:
        """Writes a checkpoint; every rank must call.

        Raises:
            TrainingError: on every rank, when any rank could not write; the last complete checkpoint is untouched.
        """
        final, tmp = self.path(step), self.folder / f".tmp-step-{step:08d}{fence.Life.here().tag}"
        # Asked once for all: on a network file system two ranks may see a folder at different times.
        if from_main(final.exists):
            return final
        try:
            from_main(lambda: self._prepare(tmp))
        except OSError as e:
            raise self._failed(step, [f"rank 0: {e}"]) from e
        # Before DeepSpeed writes: what is hashed is what training held, not what came back from a file.
        mine = tensors.hashes(engine)
        apart = self._apart(engine, mine, from_main(lambda: mine))
        recorder = _RecordingEngine()
        engine.deepspeed.checkpoint_engine = recorder
        # It would put a script of its own into every checkpoint, which the manifest could not explain.
        engine.deepspeed._copy_recovery_script = lambda *_: None
        engine.deepspeed.save_checkpoint(str(tmp), tag=ENGINE, save_latest=False)
        averages = engine.teachers.state()
        if averages and self.runtime.main:
            recorder.save(averages, str(tmp / AVERAGES))
        recorder.save({**random_states(), OWN: apart}, str(tmp / f"rank-{self.runtime.rank:05d}.pt"))
        entries: dict[str, Any] = {}
        recorder._keep_error(
            lambda: entries.update({str(p.relative_to(tmp)): files.digest(p) for p in recorder.written})
        )
        # Every rank hears of every error here and takes the same branch: one that raised alone would leave the others at a barrier.
        reports = gather_objects((entries, recorder.errors))
        errors = [f"rank {r}: {e}" for r, (_, es) in enumerate(reports) for e in es]
        if not errors:
            everything = {k: v for es, _ in reports for k, v in es.items()}
            try:
                from_main(lambda: self._publish(tmp, final, everything, {**state, TENSORS: mine}, best))
            except OSError as e:
                errors = [f"rank 0: {e}"]
        if errors:
            from_main(lambda: shutil.rmtree(tmp, ignore_errors=True))
            raise self._failed(step, errors)
        barrier()  # no rank goes on before the rename is on disk
        return final

    def _apart(self, engine: Engine, mine: dict[str, str], first: dict[str, str]) -> dict[str, Tensor]:
        """Buffers of this rank that are not those of rank 0, whose state DeepSpeed keeps for all; says when parameters differ."""
        names, held = tensors.differing(mine, first), tensors.buffers(engine.method)
        weights = gather_objects([n for n in names if n not in held])
        for rank, found in enumerate(weights):
            if found:
                self.runtime.say(
                    f"warning: {len(found)} parameters of rank {rank} are not those of rank 0 ({', '.join(found[:3])}): "
                    "the ranks have drifted apart; what is saved is rank 0's"
                )
        return {n: held[n].detach().cpu().clone() for n in names if n in held}

    def _prepare(self, tmp: Path) -> None:
        fence.check(tmp)
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in [*self.folder.glob(".tmp-*"), *self.folder.glob(".trash-*"), *self.folder.glob(".universal-*")]:
            shutil.rmtree(stale, ignore_errors=True)
        tmp.mkdir()

    def _publish(
        self, tmp: Path, final: Path, entries: dict[str, Any], state: Mapping[str, Any], best: Path | None
    ) -> None:
        files.write_atomic(tmp / "state.json", json.dumps(state, indent=1).encode())
        entries["state.json"] = files.digest(tmp / "state.json")
        if best is not None:
            shutil.copyfile(best, tmp / "best.safetensors")
            files.sync(tmp / "best.safetensors")
            entries["best.safetensors"] = files.digest(tmp / "best.safetensors")
        # The rename is the save: before it nobody reads the folder, after it every file is flushed and listed.
        files.publish(tmp, final, entries)
        files.write_atomic(self.folder / "latest", final.name.encode() + b"\n")
        self._retain(final)  # old ones go only once the new one stands

    def _retain(self, newest: Path) -> None:
        """Keeps the last k and every n-th."""
        for path in self.complete()[self.policy.keep :]:
            step = int(path.name.removeprefix("step-"))
            if path != newest and not (self.policy.keep_every and step % self.policy.keep_every == 0):
                files.remove(path)

    def _failed(self, step: int, errors: list[str]) -> TrainingError:
        kept = self.complete()
        last = f"the last complete one is {kept[0]}" if kept else "there is no earlier one"
        return everywhere(
            TrainingError(
                f"the checkpoint at step {step} could not be written to {self.folder}: {'; '.join(errors)}; {last}. "
                "Free disk space or mend the folder, then give the same command again"
            )
        )

    # ------------------------------------------------------------------------------------------------------- restore

    def find(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that verifies, with its state; says what it skips. Decided on rank 0 for all.

        Raises:
            UserError: there are checkpoints and none is complete: starting over would lose them silently.
        """
        found, skipped = from_main(self._find)
        for line in skipped:
            self.runtime.say(line)
        return found

    def _find(self) -> tuple[tuple[Path, dict[str, Any]] | None, list[str]]:
        said = [f"skipping {p.name}: a save that did not finish" for p in self.folder.glob(".tmp-step-*")]
        candidates = self.complete()
        for path in candidates:
            reason = files.problem(path)
            if reason is None:
                return (path, json.loads((path / "state.json").read_bytes())), said
            said.append(f"skipping checkpoint {path.name}: {reason}")
        if candidates:
            raise UserError(
                [
                    f"none of the {len(candidates)} checkpoints in {self.folder} is complete",
                    *said,
                    "give another out=FOLDER to start over, or restore the folder from a backup",
                ]
            )
        return None, said

    def restore(self, engine: Engine, path: Path, same_world: bool) -> None:
        """Loads weights, buffers, optimizer state and random states; converts first when the world size differs.

        Random states belong to ranks, so another world size starts fresh ones (see the loop). Buffers that differ between ranks do too:
        another world size has those of rank 0 everywhere.

        Raises:
            TrainingError: on every rank, when a tensor of any rank is not the one that was saved.
        """
        stage = engine.config.zero.stage
        if not same_world and stage > 0 and engine.optim.kind == "sgd":
            fix = "give it that number of ranks again, or set zero.stage=0 from the start"
            raise everywhere(
                UserError(
                    f"{path} was saved by another number of ranks: DeepSpeed converts Adam's state, not SGD's; {fix}"
                )
            )
        # Without sharding every rank's file holds everything, so any number of ranks reads it as it is.
        source = path if same_world or stage == 0 else self._universal(path, stage)
        with no_share.allowed(engine.deepspeed.optimizer) if source != path else nullcontext():
            loaded, _ = engine.deepspeed.load_checkpoint(str(source), tag=ENGINE)
        if loaded is None:
            raise TrainingError(f"DeepSpeed could not load {source / ENGINE}")
        own: dict[str, Tensor] = {}
        if same_world:
            kept = torch.load(path / f"rank-{self.runtime.rank:05d}.pt", weights_only=True)
            restore_random_states(kept)
            own = kept.get(OWN, {})
        else:
            # A universal checkpoint carries trained parameters and their moments alone; frozen ones and buffers come from rank 0's file.
            lacking = tensors.put(engine, tensors.untrained(path / ENGINE))
            if lacking:
                raise everywhere(
                    TrainingError(
                        f"{path} has no frozen parameter or buffer of this name and shape: {', '.join(lacking[:5])} "
                        f"({len(lacking)} in all): give the number of ranks that saved it, or another out=FOLDER"
                    )
                )
        for name, value in own.items():
            engine.method.get_buffer(name).copy_(value)
        self._restore_averages(engine, path)
        if source != path:
            engine.untangle()
        # After everything that loads: a tensor that any of the ways above left as it was built is found here, on its rank.
        self._compare(engine, path, own)
        if source != path:
            from_main(lambda: shutil.rmtree(source, ignore_errors=True))

    def _restore_averages(self, engine: Engine, path: Path) -> None:
        """Float32 averages behind teachers of 16 bits, from the file that rank 0 wrote of whole ones: any number of ranks reads it."""
        if not engine.teachers.apart:
            return
        kept = path / AVERAGES
        values = torch.load(kept, map_location="cpu", weights_only=True) if kept.exists() else {}
        lacking = engine.teachers.load(values, self.runtime.rank)
        if lacking:
            raise everywhere(
                TrainingError(
                    f"{kept} has no average of this name and shape: {', '.join(lacking[:5])} ({len(lacking)} in all): "
                    "remove that checkpoint to go on from the one before, or give another out=FOLDER"
                )
            )

    def _compare(self, engine: Engine, path: Path, own: Mapping[str, Tensor]) -> None:
        """Every tensor of every rank is the one that was saved.

        Raises:
            TrainingError: on every rank, naming those that are not, and where.
        """
        saved = json.loads((path / "state.json").read_bytes()).get(TENSORS)
        if saved is None:  # written before hashes were kept: the probe batch has to do
            return
        mine = tensors.hashes(engine)
        wrong = tensors.differing(mine, {**saved, **{n: tensors.digest(t) for n, t in own.items()}})
        found = {r: names for r, names in enumerate(gather_objects(wrong)) if names}
        if found:
            said = [f"rank {r}: {len(names)} ({', '.join(names[:5])})" for r, names in found.items()]
            raise everywhere(
                TrainingError(
                    f"{path}: tensors are not those that were saved after loading. {'; '.join(said)}. Give the number of ranks "
                    "that saved it again, or remove that checkpoint to go on from the one before"
                )
            )

    def _universal(self, path: Path, stage: int) -> Path:
        """Converts to DeepSpeed's universal form in a process of its own (on rank 0)."""
        target = self.folder / f".universal-{path.name}"
        self.runtime.say(f"{path.name} was saved by another number of ranks: converting it")

        def convert() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            to_universal(path / ENGINE, target / ENGINE, stage)

        from_main(convert)
        return target


def to_universal(source: Path, target: Path, stage: int) -> None:
    """DeepSpeed's conversion, in a process of its own.

    Raises:
        TrainingError: it failed, with what it said.
    """
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *conversion(source, target, stage)]
    # Without the run's ranks in its environment, or it would wait for them to join it.
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    done = subprocess.run(command, env=alone, capture_output=True, text=True)
    if done.returncode:
        raise TrainingError(
            f"converting {source.parent} to a universal checkpoint failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def conversion(source: Path, target: Path, stage: int) -> list[str]:
    """The converter's words."""
    words = ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    words += ["--input_folder", str(source), "--output_folder", str(target)]
    return words + (["--inject_missing_state"] if stage in (1, 2) else [])
