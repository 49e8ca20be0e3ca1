#!/usr/bin/env bash
# tensorboard 2.21.0: `EventAccumulator`, with which scripts read losses back from a run's event files, keeps at most 10,000 points of a curve by
# default, and not the first, the last or every n-th: a sample drawn at random (the last point is always in it). A run of 25,000 steps that was
# written whole is read with 15,000 steps missing; a minimum, a mean or a comparison of two runs at one step is taken from what is
# left. `size_guidance={"scalars": 0}` reads all.
#
# Seen: 25,000 written, 10,000 read, with gaps from the first steps on; with size_guidance 25,000 read.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorboard==2.21.0 numpy==2.4.6 setuptools==80.9.0
cat > "$work/curve.py" <<'PY'
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

writer = EventFileWriter(sys.argv[1])
for step in range(25_000):
    value = Summary.Value(tag="loss", simple_value=1.0)
    writer.add_event(Event(step=step, wall_time=step, summary=Summary(value=[value])))
writer.close()
read = {}
for name, options in (("default", {}), ("all", {"size_guidance": {"scalars": 0}})):
    events = EventAccumulator(sys.argv[1], **options)
    events.Reload()
    read[name] = [event.step for event in events.Scalars("loss")]
    print(f"{name}: {len(read[name])} of 25000 steps, first {read[name][:5]}, last {read[name][-3:]}")
gaps = {b - a for a, b in zip(read["default"], read["default"][1:], strict=False)}
sys.exit(not (len(read["default"]) == 10_000 and len(gaps) > 2 and len(read["all"]) == 25_000))
PY
"$work/venv/bin/python" "$work/curve.py" "$work/events" 2> "$work/stderr" || { tail -3 "$work/stderr"; exit 1; }
