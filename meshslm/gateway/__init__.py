"""The HTTP face of a node: OpenAI's API, and what the node tells about itself."""

from meshslm.gateway.app import create_app
from meshslm.gateway.server import HttpAddress, serve

__all__ = ["HttpAddress", "create_app", "serve"]
