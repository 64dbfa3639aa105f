"""Decisions. `NodeCore.handle(event, now) -> list[Effect]`, and nothing else."""
