"""Bags of patch features and genomes."""
