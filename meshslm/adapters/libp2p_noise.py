"""From a bare wire to an encrypted channel with a proven peer: Noise, then Yamux agreed.

The handshake is the library's, run over a wire that gives it a bounded number of bytes. After it
the library is left behind: its session reads a length, then a body, through ten layers for each
packet, while here one read of the wire may hold a hundred packets. What is kept of it are the two
ciphers with their keys, and how many packets each has seen.

Rules:
- Noise is the only security protocol offered, so nobody can claim an id without proving it.
- Only Ed25519 identities are let in: an id then is its public key, and checking one is cheap.
- Whatever goes wrong in the handshake is a `HandshakeError`; the caller sets the deadline.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from meshslm.adapters import libp2p_library as library
from meshslm.adapters.keyring import NodeKey
from meshslm.errors import MeshslmError, PeerFault
from meshslm.ids import NodeId

if TYPE_CHECKING:
    from meshslm.adapters.wires import Wire

HANDSHAKE_BYTES = 64 * 1024
"""Most that is read from a peer before it is authenticated; an honest handshake takes 600."""

READ_BYTES = 256 * 1024
"""One read of the socket: four full frames, so that a busy link costs few system calls."""

PLAINTEXT_BYTES = 65535 - 16
"""Most of one Noise packet: a 16-bit length less the authentication tag."""

YAMUX = library.TProtocol("/yamux/1.0.0")

_LENGTH = struct.Struct("!H")
_NONCE = struct.Struct("<4xQ")
"""Of packet n, as Noise has it with ChaCha20-Poly1305; past 2^64 it raises."""


class HandshakeError(MeshslmError):
    """No authenticated channel came about; the message is for a person."""


class WrongPeer(HandshakeError):
    """Somebody else answered than was dialled."""


class NoiseChannel:
    """Encrypts and decrypts the bytes of one connection; no I/O of its own."""

    def __init__(self, peer: NodeId, state: Any, plaintext: bytes, ciphertext: bytes) -> None:
        self.peer = peer
        out = state.noise_protocol.cipher_state_encrypt
        into = state.noise_protocol.cipher_state_decrypt
        self._seal, self._sealed = out.cipher.cipher.encrypt, out.n
        self._open, self._opened = into.cipher.cipher.decrypt, into.n
        self._plaintext = plaintext
        self._received = bytearray(ciphertext)

    def encrypt(self, data: bytes) -> bytes:
        """`data` in as few packets as it takes."""
        pieces: list[bytes] = []
        for start in range(0, len(data), PLAINTEXT_BYTES):
            plaintext = data[start : start + PLAINTEXT_BYTES]
            packet = self._seal(_NONCE.pack(self._sealed), plaintext, None)
            self._sealed += 1
            pieces += (_LENGTH.pack(len(packet)), packet)
        return b"".join(pieces)

    def decrypt(self, data: bytes) -> bytes:
        """What the packets completed by `data` hold; `PeerFault` where one was tampered with."""
        received = self._received
        received += data
        pieces = [self._plaintext]
        self._plaintext = b""
        start, end = 0, len(received)
        try:
            while end - start >= 2:
                stop = start + 2 + _LENGTH.unpack_from(received, start)[0]
                if stop > end:
                    break
                packet = bytes(received[start + 2 : stop])
                pieces.append(self._open(_NONCE.pack(self._opened), packet, None))
                self._opened += 1
                start = stop
        except Exception as error:
            raise PeerFault("a packet that does not decrypt") from error
        del received[:start]
        return b"".join(pieces)


class Handshaker:
    """Opens secure channels in the name of one node."""

    def __init__(self, key: NodeKey) -> None:
        private = library.Ed25519PrivateKey.from_bytes(key.secret)
        pair = library.KeyPair(private, private.get_public_key())
        noise = library.NoiseTransport(pair, library.create_x25519_key_pair().private_key)
        self._security = library.SecurityMultistream({library.NOISE: noise})
        self._muxers = library.GenericMultistreamSelector[None]()
        self._muxers.add_handler(YAMUX, None)

    async def dial(self, wire: Wire, peer: NodeId | None) -> NoiseChannel:
        """Authenticate as the dialling side. With a `peer`, anybody else raises `WrongPeer`."""
        raw = _BoundedWire(wire, is_initiator=True)
        expected = library.ID.from_base58(peer) if peer else None
        try:
            # None is allowed by the handshake underneath: then whoever proves an id is taken.
            session = await self._security.secure_outbound(raw, expected)
            return await self._finish(raw, session)
        except HandshakeError:
            raise
        except library.PeerIDMismatchesPubkey as error:
            raise WrongPeer(f"another node answers there, not {peer}") from error
        except Exception as error:
            raise HandshakeError(_explain(error)) from error

    async def accept(self, wire: Wire) -> NoiseChannel:
        """Authenticate as the side that was dialled."""
        raw = _BoundedWire(wire, is_initiator=False)
        try:
            return await self._finish(raw, await self._security.secure_inbound(raw))
        except HandshakeError:
            raise
        except Exception as error:
            raise HandshakeError(_explain(error)) from error

    async def _finish(self, raw: _BoundedWire, session: Any) -> NoiseChannel:
        remote = session.get_remote_peer()
        if not remote.to_bytes().startswith(library.ED25519_ID):
            raise HandshakeError("its identity is not an Ed25519 key")
        await self._muxers.select(session, raw.is_initiator)
        kept = session.high_watermark - session.low_watermark
        plaintext = await session.read(kept) if kept else b""
        state = session.conn.noise_state
        return NoiseChannel(NodeId(remote.to_base58()), state, plaintext, raw.unread())


def _explain(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"handshake failed: {str(error)[:200] or type(error).__name__}"


class _BoundedWire:
    """What the handshake reads from: buffered, and good for `HANDSHAKE_BYTES` at most."""

    def __init__(self, wire: Wire, *, is_initiator: bool) -> None:
        self.is_initiator = is_initiator
        self._wire = wire
        self._buffer = bytearray()
        self._left = HANDSHAKE_BYTES

    def unread(self) -> bytes:
        """Bytes that came in after the handshake."""
        return bytes(self._buffer)

    async def read(self, n: int | None = None) -> bytes:
        wanted = READ_BYTES if n is None else min(n, READ_BYTES)
        if not self._buffer:
            if self._left <= 0:
                raise HandshakeError(f"more than {HANDSHAKE_BYTES} bytes before authentication")
            data = await self._wire.receive_some(min(self._left, READ_BYTES))
            if not data:
                raise HandshakeError("the other side hung up in the handshake")
            self._left -= len(data)
            self._buffer += data
        taken = bytes(self._buffer[:wanted])
        del self._buffer[:wanted]
        return taken

    async def write(self, data: bytes) -> None:
        await self._wire.send_all(data)

    async def close(self) -> None:
        self._wire.close()
