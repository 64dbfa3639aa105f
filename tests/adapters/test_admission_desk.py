"""Making a mesh, redeeming tokens, renewing, revoking, changing the key: with real signatures."""

from __future__ import annotations

import stat
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from meshslm import limits
from meshslm.adapters import admission_desk
from meshslm.adapters.admission_desk import (
    AdmissionDesk,
    board_of,
    create_mesh,
    revoke,
    rotate,
)
from meshslm.adapters.keyring import NodeKey, load_or_create, public_key
from meshslm.adapters.mesh_folder import Entry, MeshFolder
from meshslm.adapters.signing import SigningKey, verify
from meshslm.adapters.tokens import Grant, from_text, narrowed
from meshslm.core.certificates import ANY, Act, Code, NotAdmitted, certified
from meshslm.errors import OurFault
from meshslm.wire.admission import Certificate, Credential, JoinRequest, JoinToken

NOW = 1_800_000_000.0


class Office:
    """A node that lets others in, at a time that can be set."""

    def __init__(self, data: Path) -> None:
        self.now = NOW
        self.key = load_or_create(data)
        self.folder = MeshFolder(data)
        self.desk = AdmissionDesk(self.folder, self.key, lambda: self.now)

    def found(self) -> Office:
        create_mesh(self.folder, self.key, "home", NOW)
        return self

    @property
    def mesh(self) -> bytes:
        member = self.folder.member()
        assert member is not None
        return member.certificate.mesh

    def invite(self, *rights: str, uses: int = 1, life_s: int = 3600) -> JoinRequest:
        grant = Grant(b"", rights or ("submit", "serve"), (ANY,), (), uses, life_s)
        token = from_text(self.desk.invite(grant, NOW + 3600, ("/ip4/127.0.0.1/tcp/1/p2p/x",)))
        return JoinRequest(1, 1, token.biscuit, "guest", token.rights, token.domains)

    def join(self, guest: NodeKey, request: JoinRequest) -> Certificate:
        return self.judge(guest, self.desk.redeem(guest.node_id, request))

    def judge(self, guest: NodeKey, credential: Credential) -> Certificate:
        keys = board_of(self.folder, self.mesh).keys(self.now)
        return certified(credential, guest.node_id, self.mesh, keys, verify, self.now)

    def refusal(self, guest: NodeKey, request: JoinRequest) -> Code:
        with pytest.raises(NotAdmitted) as refused:
            self.desk.redeem(guest.node_id, request)
        return refused.value.code


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "office").found()


@pytest.fixture
def guest() -> NodeKey:
    return NodeKey.generate()


def test_the_first_member_may_do_everything(office: Office) -> None:
    member = office.folder.member()
    assert member is not None
    own = office.judge(office.key, member.credential)
    assert own.rights == tuple(Act)
    assert own.key == office.key.public
    for path in office.folder.path.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_mesh_is_made_once(office: Office) -> None:
    before = (office.folder.path / "root.key").read_bytes()
    with pytest.raises(OurFault, match="in a mesh already"):
        create_mesh(office.folder, office.key, "again", NOW)
    assert (office.folder.path / "root.key").read_bytes() == before


def test_a_mesh_key_that_others_can_read_is_refused(office: Office) -> None:
    (office.folder.path / "root.key").chmod(0o644)
    with pytest.raises(OurFault, match="chmod 600"):
        office.folder.root()


def test_a_token_gives_a_certificate(office: Office, guest: NodeKey) -> None:
    certificate = office.join(guest, office.invite("serve"))
    assert certificate.rights == ("serve",)
    assert certificate.not_after == NOW + 3600
    assert not certificate.key


def test_a_token_narrowed_to_a_namespace_gives_no_other(office: Office, guest: NodeKey) -> None:
    grant = Grant(b"", ("write",), (), ("notes", "plans"), uses=0)
    whole = from_text(office.desk.invite(grant, NOW + 3600, ()))
    less = narrowed(whole, namespaces=("notes",))

    def request(token: JoinToken, spaces: tuple[str, ...]) -> JoinRequest:
        return JoinRequest(1, 1, token.biscuit, "guest", token.rights, namespaces=spaces)

    assert office.join(guest, request(less, less.namespaces)).namespaces == ("notes",)
    assert office.join(guest, request(less, ("plans",))).namespaces == ()
    assert office.join(guest, request(whole, whole.namespaces)).namespaces == ("notes", "plans")
    assert office.refusal(guest, request(whole, (ANY,))) is Code.WIDENED
    assert office.refusal(guest, request(less, ("art",))) is Code.WIDENED
    more = narrowed(less, namespaces=("notes", "art"))
    assert more.namespaces == ("notes",), "what is gone is not wished for"
    wider = narrowed(whole, namespaces=("notes", "art"))
    assert office.refusal(guest, request(wider, wider.namespaces)) is Code.WIDENED


def test_a_token_is_used_once(office: Office, guest: NodeKey) -> None:
    request = office.invite()
    first = office.join(guest, request)
    assert office.refusal(NodeKey.generate(), request) is Code.INVITATION_USED
    office.now += 600
    again = office.join(guest, request)
    assert again.rights == first.rights, "its answer may have been lost"
    assert again.serial == first.serial, "whoever revokes one revokes all"
    revoke(office.folder, "certificate", first.serial.hex(), NOW)
    assert office.refusal(guest, request) is Code.REVOKED


def test_many_that_show_one_token_at_once_get_no_more_than_it_gives(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = office.folder.ledger

    def read_and_let_others_go_on() -> list[Entry]:
        entries = read()
        time.sleep(0.005)
        return entries

    monkeypatch.setattr(office.folder, "ledger", read_and_let_others_go_on)
    request = office.invite(uses=3)
    guests = [NodeKey.generate() for _ in range(24)]
    together = Barrier(len(guests))

    def ask(guest: NodeKey) -> Code | None:
        together.wait(10)
        try:
            office.desk.redeem(guest.node_id, request)
        except NotAdmitted as refusal:
            return refusal.code
        return None

    with ThreadPoolExecutor(len(guests)) as threads:
        answers = Counter(threads.map(ask, guests))
    assert answers == {None: 3, Code.INVITATION_USED: 21}
    assert len(read()) == 1 + 3


def test_two_that_may_admit_do_not_both_redeem_one_token(
    office: Office, guest: NodeKey, tmp_path: Path
) -> None:
    other = deputy(office, tmp_path / "deputy", "submit", "serve")
    for maker, stranger in ((office, other), (other, office)):
        request = maker.invite(uses=1)
        first, second = NodeKey.generate(), NodeKey.generate()
        assert stranger.refusal(first, request) in (Code.NOT_ADMITTING, Code.INVITATION_INVALID)
        maker.join(second, request)
        assert maker.refusal(first, request) is Code.INVITATION_USED


def test_asking_again_and_again_does_not_fill_the_disk(office: Office, guest: NodeKey) -> None:
    request = office.invite()
    credential = newest = office.desk.redeem(guest.node_id, request)
    for _ in range(30):
        office.now += 1
        office.desk.redeem(guest.node_id, request)
        newest = office.desk.renew(guest.node_id, credential)
    assert office.judge(guest, newest).not_after == NOW + 30 + 3600, "it is given all the same"
    assert len(office.folder.ledger()) == 1 + 1
    office.now += 60
    office.desk.renew(guest.node_id, credential)
    assert office.folder.ledger()[-1].not_after == NOW + 90 + 3600


def test_asking_for_something_else_each_time_does_not_fill_the_disk(
    office: Office, guest: NodeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_desk, "LEDGER_PARTS", 5)
    whole = office.invite("serve", life_s=500)

    def wish(number: int) -> JoinRequest:
        return replace(whole, domains=(f"domain-{number}",))

    for number in range(5):
        office.join(guest, wish(number))
    for number in range(5, 9):
        assert office.refusal(guest, wish(number)) is Code.BUSY
    assert office.join(guest, wish(4)).domains == ("domain-4",), "the same again is given"
    assert len(office.folder.ledger()) == 1 + 5
    office.now += 501
    assert office.join(guest, wish(5)).domains == ("domain-5",)


def test_uses_are_counted_over_restarts_and_lines_cut_short(
    office: Office, guest: NodeKey, tmp_path: Path
) -> None:
    request = office.invite(uses=2)
    office.join(guest, request)
    with (office.folder.path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"serial":"cut sho')
    later = Office(tmp_path / "office")
    later.join(NodeKey.generate(), request)
    assert later.refusal(NodeKey.generate(), request) is Code.INVITATION_USED


def test_a_damaged_ledger_lets_nobody_in(office: Office, guest: NodeKey) -> None:
    request = office.invite()
    for damage in (b"{}\n", b'{"x":' + b"[" * 100_000 + b"\n"):
        (office.folder.path / "ledger.jsonl").write_bytes(damage)
        with pytest.raises(OurFault, match="line 1 is damaged"):
            office.folder.ledger()
    with pytest.raises(OurFault, match="line 1 is damaged"):
        office.desk.redeem(guest.node_id, request)


def test_a_token_of_any_number_of_uses(office: Office) -> None:
    request = office.invite(uses=0)
    for _ in range(3):
        office.join(NodeKey.generate(), request)


def test_expired_revoked_and_foreign_tokens(office: Office, guest: NodeKey, tmp_path: Path) -> None:
    foreign = Office(tmp_path / "other").found().invite()
    assert office.refusal(guest, foreign) is Code.INVITATION_INVALID
    request = office.invite()
    serial = office.join(guest, request).token.hex()
    revoke(office.folder, "token", serial, NOW)
    assert office.refusal(guest, request) is Code.REVOKED
    late = office.invite()
    office.now += 3600
    assert office.refusal(guest, late) is Code.INVITATION_EXPIRED


def test_who_was_put_out_does_not_come_back_with_the_same_token(
    office: Office, guest: NodeKey
) -> None:
    request = office.invite(uses=5)
    certificate = office.join(guest, request)
    revoke(office.folder, "certificate", certificate.serial.hex(), NOW)
    assert office.refusal(guest, request) is Code.REVOKED
    other = NodeKey.generate()
    revoke(office.folder, "node", other.node_id, NOW)
    assert office.refusal(other, request) is Code.REVOKED
    assert office.refusal(other, office.invite()) is Code.REVOKED


def test_renewal_gives_the_same_for_longer(office: Office, guest: NodeKey) -> None:
    credential = office.desk.redeem(guest.node_id, office.invite())
    old = office.judge(guest, credential)
    office.now += 2400
    new = office.judge(guest, office.desk.renew(guest.node_id, credential))
    assert new == replace(old, not_before=old.not_before + 2400, not_after=old.not_after + 2400)


def test_what_ran_out_or_was_revoked_is_not_renewed(office: Office, guest: NodeKey) -> None:
    credential = office.desk.redeem(guest.node_id, office.invite())
    with pytest.raises(NotAdmitted):
        office.desk.renew(NodeKey.generate().node_id, credential)
    revoke(office.folder, "node", guest.node_id, NOW)
    with pytest.raises(NotAdmitted) as refused:
        office.desk.renew(guest.node_id, credential)
    assert refused.value.code is Code.REVOKED
    office.now += 3600
    with pytest.raises(NotAdmitted) as refused:
        office.desk.renew(guest.node_id, credential)
    assert refused.value.code is Code.EXPIRED


def test_who_has_the_key_comes_back_after_a_long_time(office: Office, guest: NodeKey) -> None:
    member = office.folder.member()
    assert member is not None
    credential = office.desk.redeem(guest.node_id, office.invite())
    office.now += 2 * limits.CERTIFICATE_S
    own = office.desk.renew(office.key.node_id, member.credential)
    assert office.judge(office.key, own).rights == member.certificate.rights
    with pytest.raises(NotAdmitted):
        office.desk.renew(guest.node_id, credential)


def deputy(office: Office, data: Path, *rights: str) -> Office:
    """A member that may admit, with these rights besides."""
    second = Office(data)
    second.folder.keep_member(
        office.desk.redeem(second.key.node_id, office.invite("admit", *rights)), ()
    )
    return second


def test_a_deputy_lets_in_with_what_it_has(office: Office, guest: NodeKey, tmp_path: Path) -> None:
    second = deputy(office, tmp_path / "deputy", "submit")
    certificate = second.join(guest, second.invite("submit"))
    assert certificate.rights == ("submit",)
    assert certificate.not_after <= NOW + 3600
    for rights in (("serve",), ("submit", "admit")):
        with pytest.raises(NotAdmitted) as refused:
            second.invite(*rights)
        assert refused.value.code is Code.WIDENED
    assert office.refusal(guest, second.invite("submit")) is Code.INVITATION_INVALID


def test_whom_a_revoked_deputy_let_in_is_not_renewed(
    office: Office, guest: NodeKey, tmp_path: Path
) -> None:
    second = deputy(office, tmp_path / "deputy", "submit")
    credential = second.desk.redeem(guest.node_id, second.invite("submit"))
    renewed = office.desk.renew(guest.node_id, credential)
    revoke(office.folder, "node", second.key.node_id, NOW)
    with pytest.raises(NotAdmitted) as refused:
        office.desk.renew(guest.node_id, credential)
    assert refused.value.code is Code.REVOKED
    assert office.judge(guest, office.desk.renew(guest.node_id, renewed)).rights == ("submit",)


def test_counted_tokens_are_redeemed_where_they_were_made(
    office: Office, guest: NodeKey, tmp_path: Path
) -> None:
    second = deputy(office, tmp_path / "deputy", "submit")
    assert second.refusal(guest, office.invite("submit")) is Code.NOT_ADMITTING
    assert second.join(guest, office.invite("submit", uses=0)).rights == ("submit",)
    with pytest.raises(NotAdmitted):
        second.desk.redeem(guest.node_id, office.invite("serve", uses=0))


def test_an_ordinary_member_lets_nobody_in(office: Office, guest: NodeKey, tmp_path: Path) -> None:
    member = Office(tmp_path / "member")
    credential = office.desk.redeem(member.key.node_id, office.invite())
    member.folder.keep_member(credential, ())
    with pytest.raises(NotAdmitted, match="lets nobody in"):
        member.invite()
    assert member.refusal(guest, office.invite(uses=0)) is Code.NOT_ADMITTING
    with pytest.raises(OurFault, match="key is not here"):
        revoke(member.folder, "node", guest.node_id, NOW)


def test_a_new_key_takes_over(office: Office, guest: NodeKey) -> None:
    before = office.desk.redeem(guest.node_id, office.invite())
    stale = office.invite()
    rotate(office.folder, NOW, 600)
    assert office.judge(guest, before).rights, "for a while"
    assert office.refusal(guest, stale) is Code.INVITATION_INVALID
    after = office.desk.renew(guest.node_id, before)
    office.now += 601
    assert office.judge(guest, after).rights
    with pytest.raises(NotAdmitted) as refused:
        office.judge(guest, before)
    assert refused.value.code is Code.FORGED
    newcomer = certified(after, guest.node_id, office.mesh, (office.mesh,), verify, office.now)
    assert newcomer.node == guest.node_id, "the credential carries the change of key"
    rotate(office.folder, office.now, 600)
    assert office.join(NodeKey.generate(), replace(office.invite(), name="x")).rights


def test_leaving_forgets_everything(office: Office) -> None:
    revoke(office.folder, "token", "00" * 16, NOW)
    office.folder.forget()
    assert office.folder.member() is None
    assert office.folder.root() is None
    assert not office.folder.notices()
    assert not office.folder.ledger()


@pytest.mark.parametrize("junk", [b"", b"\x92", b"x" * 100])
def test_damaged_files_are_told(office: Office, junk: bytes) -> None:
    (office.folder.path / "member").write_bytes(junk)
    with pytest.raises(OurFault, match="damaged"):
        office.folder.member()
    (office.folder.path / "root.key").write_bytes(junk + b"?")
    with pytest.raises(OurFault, match="damaged"):
        office.folder.root()


def test_half_a_notice_is_none(office: Office) -> None:
    revoke(office.folder, "token", "00" * 16, NOW)
    (path,) = (office.folder.path / "notices").iterdir()
    path.write_bytes(path.read_bytes()[:10])
    assert office.folder.notices() == []


def test_a_peer_id_and_its_key() -> None:
    key = NodeKey.generate()
    assert public_key(key.node_id) == key.public
    for text in ("", "12D3KooW", key.node_id[:-1] + "0", key.node_id + "1", "é"):
        with pytest.raises(ValueError):  # noqa: PT011 - any kind: it is none
            public_key(type(key.node_id)(text))


def test_signatures() -> None:
    key = SigningKey.generate()
    certificate = Certificate(key.public, "m", b"s" * 16, NodeKey.generate().node_id, 0, 1)
    signed = key.sign(certificate)
    assert not verify(key.public, signed.payload, signed.signature), "the prefix is signed too"
    assert not verify(b"short", b"", b"")
    assert len(signed.payload) < limits.STATEMENT_BYTES
