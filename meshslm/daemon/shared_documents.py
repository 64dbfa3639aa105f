"""Makes the parts that keep a node's shared documents, from its settings."""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path

from meshslm import limits
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.mesh_folder import Member
from meshslm.adapters.signing import node_signer, signed_by
from meshslm.adapters.sqlite_journal import STATE_FILE, SqliteJournal
from meshslm.core.node import NodeCore
from meshslm.core.state_config import StateConfig
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.daemon.state_desk import StateDesk
from meshslm.daemon.state_keeper import StateKeeper
from meshslm.errors import OurFault
from meshslm.settings import Settings
from meshslm.wire.state import MESH_BYTES


def state_path(settings: Settings) -> Path:
    """Where a node keeps its documents."""
    return Path(settings.state.directory or settings.node.data_dir) / STATE_FILE


def state_config(settings: Settings, key: NodeKey, member: Member | None) -> StateConfig | None:
    """What the core needs; None where the settings want no documents."""
    if not settings.state.enabled:
        return None
    named = b"open " + settings.node.mesh.encode() if member is None else member.certificate.mesh
    return StateConfig(
        sign=node_signer(key.secret),
        verify=signed_by,
        mesh=blake2b(named, digest_size=MESH_BYTES).digest(),
        interests=settings.state.documents,
        document_bytes=settings.state.document_mib * limits.MIB,
    )


def keep_state(
    settings: Settings, core: NodeCore, pump: Pump, executor: Executor, last_boot: int
) -> StateKeeper | None:
    """Open the journal. Raises `OurFault` where that cannot be."""
    if not settings.state.enabled:
        return None
    path = state_path(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OurFault(f"cannot make the folder {path.parent}: {error.strerror}") from error
    journal = SqliteJournal(path)
    opened = journal.start(last_boot)
    desk = StateDesk(core.documents, pump, lambda: time.time_ns() // 1_000_000)
    keeper = StateKeeper(journal, opened, pump, desk)
    executor.keep_state(keeper)
    return keeper
