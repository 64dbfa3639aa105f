"""The settings that a command works with, from the same sources and in the same order as a node's.

Options that set something are named here once, with the key they set, so that `meshslm up`,
`meshslm config` and `meshslm doctor` cannot drift apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from meshslm.cli.failures import fail

if TYPE_CHECKING:
    from meshslm.models.model_library import ModelLibrary
    from meshslm.settings import Effective, Settings

F = TypeVar("F", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MESHSLM_CONFIG",
    show_envvar=True,
    help="TOML file with settings; ~/.config/meshslm/config.toml where it exists.",
)
models_dir_option = click.option(
    "--models-dir", metavar="FOLDER", help="Model store; the nodes of one machine share it."
)

SETTING_OPTIONS = {
    "name": "node.name",
    "mesh": "node.mesh",
    "data_dir": "node.data_dir",
    "models_dir": "node.models_dir",
    "profile": "node.profiles",
    "listen": "link.listen",
    "bootstrap": "link.bootstrap",
    "mdns": "link.mdns",
    "relay": "link.relay",
    "open": "link.open",
    "gateway_host": "gateway.host",
    "gateway_port": "gateway.port",
    "threads": "engine.threads",
    "log_level": "log.level",
    "log_format": "log.format",
}
"""Parameter of a command -> the setting it stands for."""


def setting_options(command: F) -> F:
    """Add `--config` and an option for each setting that is often given by hand."""
    options = [
        config_option,
        click.option("--name", help="What people call this node."),
        click.option("--mesh", help="Name of the mesh to be in."),
        click.option("--data-dir", metavar="FOLDER", help="Identity and journals of this node."),
        models_dir_option,
        click.option(
            "--profile",
            multiple=True,
            help="Specialist to host: a packaged one by name, or the path of a .toml file.",
        ),
        click.option("--no-profiles", is_flag=True, help="Host nothing; only pass requests on."),
        click.option(
            "--listen", multiple=True, metavar="MULTIADDR", help="Where peers reach this node."
        ),
        click.option(
            "--bootstrap", multiple=True, metavar="MULTIADDR", help="Member to join through."
        ),
        click.option("--mdns/--no-mdns", default=None, help="Find members on the local network."),
        click.option(
            "--relay",
            type=click.Choice(["off", "auto", "on"]),
            help="Relay for members that cannot be dialled; auto: in a private mesh, if others can "
            "dial this node.",
        ),
        click.option(
            "--open/--private",
            "open",
            default=None,
            help="Let anybody who reaches this node be a member.",
        ),
        click.option("--gateway-host", metavar="HOST", help="Where the OpenAI API listens."),
        click.option("--gateway-port", type=int, metavar="PORT", help="Its port; 0: any free one."),
        click.option("--threads", type=int, help="Threads of one engine; 0: from free cores."),
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"])),
        click.option("--log-format", type=click.Choice(["text", "json"])),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_effective(config: Path | None = None, **options: Any) -> Effective:
    """The settings in force, given the options of a command. Raises `OurFault`."""
    from meshslm.settings import default_directories, effective
    from meshslm.toml_text import TomlText

    directories = default_directories(os.environ, Path.home())
    path = Path(directories.config_file) if config is None else config
    file = None
    if config is not None or path.exists():
        file = TomlText(str(path), read_text(path))
    return effective(directories, file=file, environment=os.environ, flags=given_flags(options))


def read_text(path: Path) -> str:
    """A text file whole. Raises `OurFault`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"cannot read {path}: it is not UTF-8 text (byte {error.start})")


def given_flags(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, by the key they set."""
    flags: dict[str, Any] = {}
    for parameter, key in SETTING_OPTIONS.items():
        value = options.get(parameter)
        if value is not None and value != ():
            flags[key] = value
    if options.get("no_profiles"):
        if options.get("profile"):
            raise click.UsageError("--profile and --no-profiles exclude each other")
        flags["node.profiles"] = ()
    return flags


def open_library(config: Path | None = None, **options: Any) -> ModelLibrary:
    """The model store that a command's options lead to. Raises `OurFault`."""
    return library_of(load_effective(config, **options).settings)


def library_of(settings: Settings) -> ModelLibrary:
    """The model store that the settings name."""
    from meshslm.models.model_library import ModelLibrary

    return ModelLibrary(Path(settings.node.models_dir), environment=os.environ)
