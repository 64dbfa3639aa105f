"""The only door to the libp2p library: what is used of it, loaded without the rest.

Used: key types, peer ids, multistream-select and the Noise handshake. Not used: its hosts, swarm,
transports and multiplexers; `docs/decisions` says why.

`import libp2p` pulls in every transport there is (QUIC, WebRTC, gRPC, DHT, pub/sub): 83 MiB and one
to two seconds, measured. The four packages whose `__init__` does that are therefore entered without
running it: `_open` puts an empty package with the same search path in its place, and the submodules
load as usual. One module that exists for a type alone, and would load QUIC, is replaced too.
What remains is 16 MiB and a quarter of a second.

Rules:
- This is the one place that changes the library, and the version is pinned exactly.
- Nothing else in the process may import libp2p; a process that has done so is left as it is.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

from meshslm.errors import OurFault

VERSION = "0.8.1"
_PACKAGES = ("libp2p", "libp2p.security", "libp2p.transport", "libp2p.transport.quic")


def _open() -> None:
    """Prepare the packages; harmless where the library was loaded in full before."""
    if "libp2p" in sys.modules:
        return
    found = importlib.util.find_spec("libp2p")
    if found is None or not found.submodule_search_locations:
        raise OurFault("libp2p is not installed; install meshslm with its node extra")
    version = importlib.metadata.version("libp2p")
    if version != VERSION:
        raise OurFault(f"libp2p {VERSION} is needed exactly, and {version} is installed")
    root = Path(found.submodule_search_locations[0])
    for name in _PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    quic = ModuleType("libp2p.transport.quic.stream")
    # A module takes any attribute; the type checker knows only those of all modules.
    quic.QUICStream = type("QUICStream", (), {})  # type: ignore[attr-defined]
    sys.modules[quic.__name__] = quic
    # It logs what peers do at error level; who may fill our log is for this program to decide.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)


_open()

# Only now: the packages had to be prepared.
from libp2p.crypto.ed25519 import Ed25519PrivateKey  # noqa: E402
from libp2p.crypto.keys import KeyPair  # noqa: E402
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair  # noqa: E402
from libp2p.custom_types import TProtocol  # noqa: E402
from libp2p.peer.id import ID  # noqa: E402
from libp2p.protocol_muxer.generic_selector import GenericMultistreamSelector  # noqa: E402
from libp2p.protocol_muxer.multiselect import Multiselect  # noqa: E402
from libp2p.protocol_muxer.multiselect_client import MultiselectClient  # noqa: E402
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator  # noqa: E402
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey  # noqa: E402
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE  # noqa: E402
from libp2p.security.noise.transport import Transport as NoiseTransport  # noqa: E402
from libp2p.security.security_multistream import SecurityMultistream  # noqa: E402

ED25519_ID = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
"""How the bytes of a peer id begin where it is an Ed25519 public key."""

__all__ = [
    "ED25519_ID",
    "ID",
    "NOISE",
    "Ed25519PrivateKey",
    "GenericMultistreamSelector",
    "KeyPair",
    "Multiselect",
    "MultiselectClient",
    "MultiselectCommunicator",
    "NoiseTransport",
    "PeerIDMismatchesPubkey",
    "SecurityMultistream",
    "TProtocol",
    "create_x25519_key_pair",
]
