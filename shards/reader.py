"""The public door to a packed data set: `from shards.reader import Dataset`.

Inside this package import from `shards.read`; this name stays for programs of others.
"""

from shards.read.dataset import Dataset
from shards.read.record import ShardRecord

Rec = ShardRecord
"""Its name before; programs of others ask for it."""

__all__ = ["Dataset", "Rec", "ShardRecord"]
