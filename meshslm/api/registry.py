"""What the mesh knows of its members, also of those away, in HTTP shapes."""

from __future__ import annotations

import msgspec

REGISTRY = "/mesh/registry"


class HostedInfo(msgspec.Struct, kw_only=True):
    """A profile that a member has, or had."""

    profile: str
    model: str
    quantisation: str = ""
    context: int = 0
    domains: list[str] = []
    operations: list[str] = []


class MemberInfo(msgspec.Struct, kw_only=True):
    """One member, as it last said of itself."""

    node: str
    name: str
    version: str
    there: bool
    """The asked node has it as alive now."""
    seen_ms: float
    """Since it was there, as far as anybody knows; 0 while it is. Up to six hours too long for who
    has not met it since its own start."""
    addresses: list[str] = []
    cores: int = 0
    memory_mib: int = 0
    accelerator: str = ""
    hosts: list[HostedInfo] = []


class RegistryReply(msgspec.Struct, kw_only=True):
    """Answer of `GET /mesh/registry`."""

    members: list[MemberInfo]
