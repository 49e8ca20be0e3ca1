"""Images and bags of one's own through a trained encoder, in Python: what `import medpair` opens (docs/api.md)."""
