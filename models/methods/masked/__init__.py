"""Parts hidden and restored, or matched."""
