"""Shared documents as values: names, parts, what an update may be. Pure: no I/O, no clock."""
