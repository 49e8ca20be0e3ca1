"""Attention over the patches of slides, for people to look at: which slides, tables, pictures."""
