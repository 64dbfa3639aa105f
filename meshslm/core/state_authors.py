"""Who may write to which document, also of those who are not here.

In a private mesh a certificate says so. A delta may come from a relay long after its author has
left; whoever does not know the author's certificate asks the relay for it, checks it as it would
at a hello, and asks for the delta again. In an open mesh everybody may write.

Rules:
- An author is asked for once in `STATE_PULL_MS`, at whoever sent something of it.
- What is shown unasked is not looked at; what does not hold is not kept.
- Of a node that was put out nothing new is taken.
"""

from __future__ import annotations

from meshslm import limits, state_limits
from meshslm.core.admission import Admission
from meshslm.core.certificates import Act, may, stated
from meshslm.core.directory import Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.state.names import DocumentClass, class_of, subject_of
from meshslm.wire.admission import Certificate, Credential
from meshslm.wire.state import AuthorShown, AuthorWanted


class StateAuthors:
    """The rights of authors, and the credentials that prove them."""

    def __init__(self, node: NodeId, admission: Admission, out: Outbox) -> None:
        self._node = node
        self._admission = admission
        self._out = out
        self._asked: dict[NodeId, Instant] = {}
        self._known: dict[NodeId, tuple[Credential, Certificate]] = {}
        """Those that were seen, here or shown by others."""

    def may_write(self, author: NodeId, document: str) -> bool:
        """Whether a node may have a part in a document."""
        if not self._admission.private:
            return True
        if self._admission.is_revoked(author):
            return False
        certificate = self._certificate(author)
        if certificate is None:
            return False
        match class_of(document):
            case DocumentClass.MEMORY:
                return may(certificate, Act.WRITE, subject_of(document))
            case DocumentClass.ROLLOUT:
                return may(certificate, Act.ROLLOUT)
            case _:
                return True

    def unknown(self, author: NodeId) -> bool:
        """Whether nothing can be said of an author's rights."""
        return self._admission.private and self._certificate(author) is None

    def _certificate(self, author: NodeId) -> Certificate | None:
        credential = self._admission.credential_of(author)
        known = self._known.get(author)
        if credential is None:
            return known[1] if known is not None else None
        if known is None or known[0] is not credential:
            self._remember(author, credential)
        return self._known[author][1]

    def _remember(self, author: NodeId, credential: Credential) -> None:
        """Keep a credential that was found good."""
        if author not in self._known and len(self._known) >= limits.PEERS:
            del self._known[next(iter(self._known))]
        self._known[author] = (credential, stated(credential.certificate, Certificate))

    def ask(self, author: NodeId, peer: NodeId, now: Instant) -> None:
        """Ask a peer for an author's credential, unless somebody was asked just now."""
        asked = self._asked.get(author)
        if asked is not None and ms_between(asked, now) < state_limits.STATE_PULL_MS:
            return
        if len(self._asked) >= limits.PEERS:
            self._asked.clear()
        self._asked[author] = now
        self._out.send(peer, Lane.BACKGROUND, AuthorWanted(author))

    def met(self, node: NodeId) -> None:
        """A member is here: what it writes may be handed on to us when it is not."""
        if self._admission.private:
            self._certificate(node)

    def on_wanted(self, peer: Peer, message: AuthorWanted, _now: Instant) -> None:
        """A peer asks: answer where the credential is known."""
        if self._admission.private and self._certificate(message.author) is not None:
            credential = self._known[message.author][0]
            self._out.send(peer.node, Lane.BACKGROUND, AuthorShown(message.author, credential))

    def on_shown(self, _peer: Peer, message: AuthorShown, now: Instant) -> bool:
        """A peer shows one that was asked for; whether its author is known now."""
        if self._asked.pop(message.author, None) is None:
            return False
        if not self._admission.vouched(message.author, message.credential, now):
            self._out.tell("state.author-refused", "its credential", peer=message.author)
            return False
        self._remember(message.author, message.credential)
        return True
