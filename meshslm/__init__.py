"""meshslm: a peer-to-peer mesh of small, specialised language models."""

__version__ = "0.1.0"
