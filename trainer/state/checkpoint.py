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
checkpoint alone. What it writes is taken first (trainer/state/taking.py): the tensors themselves, and training waits until they are
written; or copies, which a thread of each rank writes while training goes on.

State is plain data, and our own files load without executing anything; DeepSpeed's shards are pickles, so take checkpoints only from
runs you trust.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from trainer.config.shared import Checkpoint, Health
from trainer.engine import parts, tensors
from trainer.engine.engine import Engine
from trainer.errors import Stopped, TrainingError, UserError, everywhere
from trainer.health.spikes import RollBack
from trainer.runtime import (
    Runtime,
    barrier,
    from_main,
    gather_objects,
    longest_wait,
    random_states,
)
from trainer.state import fence, files
from trainer.state.copies import HostCopies
from trainer.state.restoring import restore
from trainer.state.taking import AVERAGES, ENGINE, OWN, TENSORS, Hashes, Recorder, Taken, kept_error
from trainer.state.writer import Writer


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, out: Path, policy: Checkpoint, runtime: Runtime, health: Health | None = None):
        self.folder, self.policy, self.runtime = out / "checkpoints", policy, runtime
        self.writer = Writer(longest_wait(health or Health()))
        self.copies = HostCopies()

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def complete(self) -> list[Path]:
        """Published checkpoints, newest first (not verified)."""
        return sorted((p for p in self.folder.glob("step-*") if p.is_dir()), reverse=True)

    # ---------------------------------------------------------------------------------------------------------- save

    def save(self, engine: Engine, step: int, state: Mapping[str, Any], best: Path | None = None) -> Path:
        """Saves the run as it is now; every rank must call. Returns the checkpoint's path.

        Where it is written in the background it returns when all is copied: the checkpoint is there after `wait`.

        Raises:
            TrainingError: on every rank, when any rank could not write this one, or the one that was still being written; the last
                complete checkpoint is untouched.
        """
        self.wait()  # one at a time: the copies of the last one are in use until it is written
        # Asked once for all: on a network file system two ranks may see a folder at different times.
        if from_main(self.path(step).exists):
            return self.path(step)
        goes_on = self.policy.background(engine.parameters)
        group = self.writer.group() if goes_on else None
        taken = self._take(engine, step, state, best, group, copied=goes_on)
        if goes_on:
            self.writer.start(lambda: self._write(taken, group))
        else:
            self._write(taken, group)
        return self.path(step)

    def reserve(self, engine: Engine, size: int) -> None:
        """Makes memory for copies of so many bytes ready, beside the first steps, where saves will be written in the background."""
        if self.policy.background(engine.parameters):
            self.wait()
            self.writer.start(lambda: self.copies.reserve(size))

    def wait(self) -> None:
        """Until the save that is being written stands; every rank must call.

        Raises:
            TrainingError: on every rank, when any rank could not write.
        """
        self.writer.wait()

    @property
    def failed(self) -> bool:
        """Whether a save ended with an error that `wait` will raise."""
        return self.writer.failed

    @contextmanager
    def settled(self) -> Iterator[None]:
        """However the training inside ends, the save that it left under way is finished first: what follows counts on it.

        Raises:
            TrainingError: on every rank, as `wait`; another error of the training comes first, and that of the save is said.
        """
        try:
            yield
        except (Stopped, RollBack):
            self.wait()
            raise
        except Exception:
            try:
                self.wait()
            except Exception as lost:
                print(f"[rank {self.runtime.rank}] {lost}", flush=True)
            raise
        self.wait()

    def close(self) -> None:
        self.writer.close()

    def _take(
        self,
        engine: Engine,
        step: int,
        state: Mapping[str, Any],
        best: Path | None,
        group: ProcessGroup | None,
        copied: bool,
    ) -> Taken:
        """What this rank has to write: the tensors themselves, or copies where a thread writes while training goes on."""
        keep: Callable[[Any], Any] = self.copies.of if copied else lambda tree: tree
        self.copies.begin()
        recorder, writer = Recorder(self._tmp(step), keep), engine.deepspeed.checkpoint_engine
        engine.deepspeed.checkpoint_engine = recorder
        # It would put a script of its own into every checkpoint, which the manifest could not explain.
        engine.deepspeed._copy_recovery_script = lambda *_: None
        engine.deepspeed.save_checkpoint(str(recorder.root), tag=ENGINE, save_latest=False)
        engine.deepspeed.checkpoint_engine = writer  # or what was taken would live until the next save
        # Hashes are of what training held, not of what came back from a file.
        held = parts.parts(engine) if copied else {}
        buffers, averages, opened = tensors.buffers(engine.method), engine.teachers.state(), None
        with kept_error(recorder.errors):
            held, buffers = parts.kept(held, keep), keep(buffers)
            opened = open(best, "rb") if best is not None and self.runtime.main else None  # noqa: SIM115
        if averages and self.runtime.main:
            recorder.files[AVERAGES] = averages
        self.copies.end()

        def hashes() -> Hashes:
            return parts.hashes(held, group) if copied else tensors.hashes(engine)

        return Taken(
            step, copy.deepcopy(state), opened, random_states(), hashes, buffers, recorder.files, recorder.errors
        )

    def _write(self, taken: Taken, group: ProcessGroup | None) -> None:
        """The checkpoint: on every rank, in a thread whose collectives are of `group`, or while training waits."""
        with taken.best or nullcontext():
            self._write_all(taken, group)

    def _write_all(self, taken: Taken, group: ProcessGroup | None) -> None:
        step, tmp, final = taken.step, self._tmp(taken.step), self.path(taken.step)
        try:
            from_main(lambda: self._prepare(tmp), group)
        except OSError as e:
            raise self._failed(step, [f"rank 0: {e}"]) from e
        mine = taken.hashes()
        apart = self._apart(taken.buffers, mine, from_main(lambda: mine, group), group)
        contents = {**taken.files, f"rank-{self.runtime.rank:05d}.pt": {**taken.random, OWN: apart}}
        entries: dict[str, Any] = {}
        with kept_error(taken.errors):
            for name, content in contents.items():
                entries[name] = _saved(content, tmp / name)
        # Every rank hears of every error here and takes the same branch: one that raised alone would leave the others at a barrier.
        reports = gather_objects((entries, taken.errors), group)
        errors = [f"rank {r}: {e}" for r, (_, es) in enumerate(reports) for e in es]
        if not errors:
            everything = {k: v for es, _ in reports for k, v in es.items()}
            try:
                from_main(
                    lambda: self._publish(tmp, final, everything, {**taken.state, TENSORS: mine}, taken.best), group
                )
            except OSError as e:
                errors = [f"rank 0: {e}"]
        if errors:
            from_main(lambda: shutil.rmtree(tmp, ignore_errors=True), group)
            raise self._failed(step, errors)
        barrier(group)  # no rank goes on before the rename is on disk

    def _apart(
        self, held: Mapping[str, Tensor], mine: Hashes, first: Hashes, group: ProcessGroup | None
    ) -> dict[str, Tensor]:
        """Buffers of this rank that are not those of rank 0, whose state DeepSpeed keeps for all; says when parameters differ."""
        names = tensors.differing(mine, first)
        weights = gather_objects([n for n in names if n not in held], group)
        for rank, found in enumerate(weights):
            if found:
                self.runtime.say(
                    f"warning: {len(found)} parameters of rank {rank} are not those of rank 0 ({', '.join(found[:3])}): "
                    "the ranks have drifted apart; what is saved is rank 0's"
                )
        return {n: held[n].detach().cpu().clone() for n in names if n in held}

    def _tmp(self, step: int) -> Path:
        return self.folder / f".tmp-step-{step:08d}{fence.Life.here().tag}"

    def _prepare(self, tmp: Path) -> None:
        fence.check(tmp)
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in [*self.folder.glob(".tmp-*"), *self.folder.glob(".trash-*"), *self.folder.glob(".universal-*")]:
            shutil.rmtree(stale, ignore_errors=True)
        tmp.mkdir()

    def _publish(
        self, tmp: Path, final: Path, entries: dict[str, Any], state: Mapping[str, Any], best: IO[bytes] | None
    ) -> None:
        files.write_atomic(tmp / "state.json", json.dumps(state, indent=1).encode())
        entries["state.json"] = files.digest(tmp / "state.json")
        if best is not None:
            with open(tmp / "best.safetensors", "wb") as out:
                shutil.copyfileobj(best, out, 1 << 20)
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
                "Mend that (free disk space, repair the folder), then give the same command again"
            )
        )

    # ------------------------------------------------------------------------------------------------------- restore

    def find(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that verifies, with its state; says what it skips. Decided on rank 0 for all.

        Raises:
            UserError: there are checkpoints and none is complete: starting over would lose them silently.
        """
        self.wait()
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
        """Loads a checkpoint into an engine (restoring.py); every rank must call."""
        restore(engine, path, same_world, self.runtime)


def _saved(content: object, path: Path) -> dict[str, int | str]:
    """Writes and flushes one file; its size and hash."""
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    files.sync(path)
    return files.digest(path)
