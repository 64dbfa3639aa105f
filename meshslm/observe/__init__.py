"""Seeing what a node does: meters and logs."""
