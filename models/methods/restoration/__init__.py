"""Damaged images restored."""
