"""The whole configuration of a daemon, and where each value of it comes from.

A flag wins over the environment, the environment over the file, the file over the default.

Rules:
- Pure: texts and mappings are handed in, nothing is read here.
- Every value has a type, a bound and a description, and `docs/settings.md` is made of them.
- An unknown key, or an unknown variable of a known section, is an error: a value that is quietly
  ignored is worse than a daemon that does not start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from meshslm import limits, mesh_limits, state_limits
from meshslm.consensus_settings import ConsensusSettings
from meshslm.errors import OurFault
from meshslm.routing_settings import RoutingSettings, UpstreamSettings
from meshslm.toml_reference import key_rows, toml_value
from meshslm.toml_text import TomlText, nearest, sentence

ENVIRONMENT_PREFIX = "MESHSLM_"

LINK_PORT = limits.HTTP_PORT - 1
"""Two neighbours that no common program uses."""

_NAME_CHARACTERS = r"[^\s\x00-\x1f\x7f@:/,]"
"""A name is part of selectors such as `model@node`; 32 characters of any script fit the wire."""

Name = Annotated[
    str,
    Meta(
        pattern=rf"^{_NAME_CHARACTERS}{{1,32}}\Z",
        extra={"expected": "1 to 32 characters, without blanks and '@:/,'"},
    ),
]
NameOrNone = Annotated[
    str,
    Meta(
        pattern=rf"^{_NAME_CHARACTERS}{{0,32}}\Z",
        extra={"expected": "at most 32 characters, without blanks and '@:/,'"},
    ),
]
Address = Annotated[
    str,
    Meta(
        pattern=r"^/[a-z0-9]+/\S{1,250}\Z",
        extra={"expected": "a multiaddress such as /ip4/192.168.1.7/tcp/7415"},
    ),
]
HostName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z",
        extra={"expected": "a host name such as chat.example.org, without a port"},
    ),
]
DocumentPattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=state_limits.DOCUMENT_NAME_BYTES,
        extra={"expected": "a document's name, such as memory/notes, or memory/*"},
    ),
]
Directory = Annotated[str, Meta(min_length=1, max_length=4096, extra={"expected": "a path"})]
ProfileReference = Annotated[str, Meta(min_length=1, max_length=4096)]
Switch = Annotated[bool, Meta(extra={"expected": "true or false"})]


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this node is, and what it hosts."""

    name: Annotated[
        NameOrNone, Meta(description="What people call it. Empty: made from its identity.")
    ] = ""
    mesh: Annotated[Name, Meta(description="Name of the mesh; nodes of another are refused.")] = (
        "meshslm"
    )
    data_dir: Annotated[
        Directory,
        Meta(description="Identity and journals, of one daemon at a time. `~/`: the home folder."),
    ] = ""
    models_dir: Annotated[
        Directory, Meta(description="Model store; the daemons of one machine share it.")
    ] = ""
    profiles: Annotated[
        tuple[ProfileReference, ...],
        Meta(
            max_length=limits.SPECIALISTS,
            description="Specialists to host: packaged ones by name, your own as the path of a "
            "`.toml` file. None: it only passes requests on.",
        ),
    ] = ("general",)


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How it meets its peers."""

    listen: Annotated[
        tuple[Address, ...],
        Meta(
            min_length=1,
            max_length=limits.ADDRESSES_PER_PEER,
            description="Multiaddresses to listen at; /ip4/0.0.0.0/tcp/PORT for every interface, "
            "port 0 for any free one.",
        ),
    ] = (f"/ip4/127.0.0.1/tcp/{LINK_PORT}",)
    bootstrap: Annotated[
        tuple[Address, ...],
        Meta(
            max_length=limits.PEERS,
            description="Multiaddresses of members to join through. One that ends in /p2p/ID is "
            "joined only where that node answers.",
        ),
    ] = ()
    mdns: Annotated[Switch, Meta(description="Find members on the local network.")] = False
    dht: Annotated[
        tuple[Address, ...],
        Meta(
            max_length=mesh_limits.DHT_SERVERS,
            description="Multiaddresses, ending in /p2p/ID, of servers of a libp2p Kademlia DHT, "
            "which need not be members: a private mesh's nodes find each other through them. None: "
            "off. What servers learn: `docs/security.md`.",
        ),
    ] = ()
    metered: Annotated[
        Switch,
        Meta(description="Its link is paid for by volume: others ask it only where it pays."),
    ] = False
    reach: Annotated[
        Switch,
        Meta(
            description="Find out through members whether others can dial this node, and be called "
            "through those that relay where they cannot."
        ),
    ] = True
    relay: Annotated[
        Literal["off", "auto", "on"],
        Meta(
            description="Relay for members that cannot be dialled: in a private mesh, if others "
            "can dial this node (auto), or in any case (on)."
        ),
    ] = "auto"
    open: Annotated[
        Switch,
        Meta(
            description="Whoever reaches this node is a member. A node that is in no private mesh "
            "and listens beyond loopback does not start without it."
        ),
    ] = False


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP server that speaks the OpenAI API."""

    host: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="Address to listen at. Whoever reaches it may use it.",
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0 for any free one.")] = (
        limits.HTTP_PORT
    )
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            max_length=limits.ALLOWED_HOSTS,
            description="Host names, beside those of loopback, by which a node on loopback may be "
            "called, and whose pages may call it: a proxy's, or a page's own.",
        ),
    ] = ()
    max_body_bytes: Annotated[
        int, Meta(ge=limits.KIB, le=64 * limits.MIB, description="Largest request, in bytes.")
    ] = limits.HTTP_BODY_BYTES


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The worker process of each base model."""

    threads: Annotated[
        int, Meta(ge=0, le=1024, description="Threads of one engine; 0: chosen from free cores.")
    ] = 0
    slots: Annotated[
        int, Meta(ge=1, le=256, description="Sequences that are generated at the same time.")
    ] = 8
    context: Annotated[
        int,
        Meta(
            ge=0,
            le=2**24,
            description="Tokens of one sequence, prompt and answer; 0: as many as the model was "
            "trained for. Memory grows with this times `slots`.",
        ),
    ] = 2048
    batch: Annotated[
        int, Meta(ge=32, le=16384, description="Tokens computed in one step, at most.")
    ] = 512
    gpu_layers: Annotated[
        int,
        Meta(
            ge=-1,
            le=1024,
            description="Layers of a model to put on a GPU that llama.cpp was built for; -1: as "
            "many as fit.",
        ),
    ] = -1
    memory_mib: Annotated[
        int,
        Meta(
            ge=0,
            le=999_999,
            description="Memory for all loaded models together; one more than fits has the least "
            "recently used ones unloaded. 0: three quarters of what the machine, or the control "
            "group, has.",
        ),
    ] = 0
    idle_s: Annotated[
        int,
        Meta(
            ge=0,
            le=999_999,
            description="A model without requests for so many seconds is unloaded until the next "
            "one; 0: never.",
        ),
    ] = 0
    states_mib: Annotated[
        int,
        Meta(
            ge=0,
            le=2**24,
            description="Disk space, in MiB, for computed beginnings of conversations, so that "
            "these outlive a model's time in memory; 0: none are kept. They hold what was said.",
        ),
    ] = 0
    sandbox: Annotated[
        Literal["off", "auto", "required"],
        Meta(
            description="Whether a worker gives up network, files and programs: as far as this "
            "system can (auto), or not starting where it cannot (required)."
        ),
    ] = "auto"


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What it says of itself."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level to write.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="For a person, or one JSON object a line.")
    ] = "text"


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds that depend on what the node is for."""

    deadline_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=limits.DEADLINE_MS,
            description="Time for one request that names none, in milliseconds.",
        ),
    ] = limits.DEADLINE_MS
    queue: Annotated[
        int,
        Meta(
            ge=0,
            le=65536,
            description="Requests that wait for one engine; more are refused. With 0 none waits: "
            "a request finds a free slot or is refused.",
        ),
    ] = limits.QUEUE_PER_ENGINE
    drain_s: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.DRAIN_MS // 1000,
            description="Time that SIGTERM or Ctrl-C leaves to what is under way, to end or to go "
            "on elsewhere, in seconds.",
        ),
    ] = 5


class RecordSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The flight recorder: what happened to this node, to be replayed."""

    mib: Annotated[
        int,
        Meta(ge=0, le=1024, description="Memory for it, in MiB. 0: nothing is recorded."),
    ] = limits.RECORDING_MIB
    texts: Annotated[
        Switch,
        Meta(
            description="Keep the texts of prompts and answers in recordings. Without it they are "
            "replaced by fillers of their length."
        ),
    ] = False


class StateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shared documents: memory, registry, ledgers."""

    enabled: Annotated[Switch, Meta(description="Keep replicas of the mesh's documents.")] = True
    directory: Annotated[
        str,
        Meta(
            max_length=4096,
            description="Folder of `state.sqlite`, on a disk that honours flushes. Empty: "
            "`node.data_dir`.",
        ),
    ] = ""
    documents: Annotated[
        tuple[DocumentPattern, ...],
        Meta(
            max_length=state_limits.INTERESTS,
            description="Documents of which this node keeps a replica, beside those that it "
            "writes to: names, or beginnings with `*` behind them.",
        ),
    ] = ("registry", "rollout", "memory/*", "ledger/*")
    journal_texts: Annotated[
        Switch,
        Meta(description="Keep the prompts of tasks in this node's journal, for `meshslm task`."),
    ] = False
    document_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=state_limits.DOCUMENT_MIB,
            description="Live data of this node in one document, in MiB; more is refused.",
        ),
    ] = state_limits.DOCUMENT_MIB


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    node: NodeSettings = NodeSettings()
    link: LinkSettings = LinkSettings()
    gateway: GatewaySettings = GatewaySettings()
    engine: EngineSettings = EngineSettings()
    log: LogSettings = LogSettings()
    limits: LimitSettings = LimitSettings()
    record: RecordSettings = RecordSettings()
    state: StateSettings = StateSettings()
    routing: RoutingSettings = RoutingSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    consensus: ConsensusSettings = ConsensusSettings()


@dataclass(frozen=True, slots=True)
class Directories:
    """Where this user's things are, by the XDG base directory specification."""

    home: PurePath
    config_file: PurePath
    data: PurePath
    models: PurePath


def default_directories(environment: Mapping[str, str], home: PurePath) -> Directories:
    """The directories to use where nothing else is said.

    Models are data, not cache: a node must start without a network after any cleaning of caches.
    """

    def base(variable: str, otherwise: str) -> PurePath:
        given = PurePath(environment.get(variable, ""))
        return given if given.is_absolute() else home / otherwise  # relative ones are to be ignored

    data = base("XDG_DATA_HOME", ".local/share") / "meshslm"
    config = base("XDG_CONFIG_HOME", ".config") / "meshslm" / "config.toml"
    return Directories(home, config, data, data / "models")


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings in force."""

    settings: Settings
    sources: Mapping[str, str]
    """Key, such as `gateway.port`, to where its value is from: `default`, the file and line, the
    variable, or `flag`."""


def effective(
    directories: Directories,
    *,
    file: TomlText | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    flags: Mapping[str, Any] = MappingProxyType({}),
) -> Effective:
    """Join all sources.

    `flags` has values by key, such as `gateway.port`; a text is read as in the environment.
    Raises `OurFault` that names the file and line, the variable or the flag, and the key.
    """
    values: dict[str, Any] = {
        "node.data_dir": str(directories.data),
        "node.models_dir": str(directories.models),
    }
    sources = dict.fromkeys(KEYS, "default")
    if file is not None:
        _take_file(file, values, sources)
    _check_variables(environment)
    for key in KEYS:
        variable = variable_of(key)
        if variable in environment:
            values[key] = _value(key, environment[variable], f"{variable} ({key})")
            sources[key] = variable
        if key in flags:
            values[key] = _value(key, flags[key], f"flag for {key}")
            sources[key] = "flag"
    for key in ("node.data_dir", "node.models_dir"):
        if values[key].startswith("~/"):
            values[key] = str(directories.home / values[key][2:])
    tables: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tables.setdefault(section, {})[name] = value
    return Effective(msgspec.convert(tables, Settings), MappingProxyType(sources))


def render_toml(settings: Settings, sources: Mapping[str, str] = MappingProxyType({})) -> str:
    """The settings as a file that says the same; `sources` become comments."""
    lines: list[str] = []
    for section in Settings.__struct_fields__:
        lines += ["", f"[{section}]"]
        table = getattr(settings, section)
        for name in table.__struct_fields__:
            source = sources.get(f"{section}.{name}")
            comment = f"  # {source}" if source else ""
            lines.append(f"{name} = {toml_value(getattr(table, name))}{comment}")
    return "\n".join(lines[1:]) + "\n"


def reference() -> str:
    """Every setting, as Markdown."""
    parts: list[str] = []
    for section, kind in _SECTIONS.items():
        parts += [f"## `[{section}]`", "", kind.__doc__ or "", ""]
        parts += ["| Key | Value | Default | Variable | Meaning |", "|---|---|---|---|---|"]
        for row in key_rows(kind):
            key = f"{section}.{row.name}"
            default = _DIRECTORY_DEFAULTS.get(key, row.default)
            parts.append(
                f"| `{row.name}` | {row.kind} | `{default}` | `{variable_of(key)}` "
                f"| {row.description} |"
            )
        parts.append("")
    return "\n".join(parts)


def variable_of(key: str) -> str:
    """The environment variable of a key: `gateway.port` is `MESHSLM_GATEWAY_PORT`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


_SECTIONS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {field.name: field.type for field in msgspec.structs.fields(Settings)}
)

_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        f"{section}.{field.name}": field.type
        for section, kind in _SECTIONS.items()
        for field in msgspec.structs.fields(kind)
    }
)

KEYS: tuple[str, ...] = tuple(_TYPES)
"""Every key, such as `gateway.port`, in order."""

_DIRECTORY_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "node.data_dir": "$XDG_DATA_HOME/meshslm",
        "node.models_dir": "$XDG_DATA_HOME/meshslm/models",
    }
)


def _take_file(file: TomlText, values: dict[str, Any], sources: dict[str, str]) -> None:
    """Check the whole file, then take the keys that it has."""
    settings = file.decode(Settings)
    for section, table in file.data.items():
        for name in table:
            key = f"{section}.{name}"
            values[key] = getattr(getattr(settings, section), name)
            sources[key] = f"{file.name}, line {file.line((section, name))}"


def _check_variables(environment: Mapping[str, str]) -> None:
    """Refuse a variable that looks like one of ours and is none."""
    known = {variable_of(key) for key in KEYS}
    prefixes = tuple(f"{ENVIRONMENT_PREFIX}{section.upper()}_" for section in _SECTIONS)
    for variable in environment:
        if variable.startswith(prefixes) and variable not in known:
            raise OurFault(f"no setting is called {variable}; {nearest(variable, known)}")


def _value(key: str, given: Any, origin: str) -> Any:
    """A value from the environment or a flag, as its setting's type. Raises `OurFault`."""
    kind = _TYPES[key]
    node = inspect.type_info(kind)
    value = given
    if isinstance(given, str) and _is_list(node):
        value = [item.strip() for item in given.split(",")] if given.strip() else []
    try:
        if isinstance(given, str):
            given.encode()
        return msgspec.convert(value, kind, strict=not isinstance(given, str))
    except UnicodeEncodeError:
        raise OurFault(f"{origin}: it is not valid UTF-8") from None
    except msgspec.ValidationError as error:
        raise OurFault(sentence(origin, kind, value, error)) from None


def _is_list(node: inspect.Type) -> bool:
    while isinstance(node, inspect.Metadata):
        node = node.type
    return isinstance(node, inspect.VarTupleType)
