"""Join tokens: what they give, what narrowing leaves, and what is not taken for one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from biscuit_auth import BlockBuilder, PublicKey, UnverifiedBiscuit
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.signing import SigningKey, new_serial
from meshslm.adapters.tokens import (
    PREFIX,
    Grant,
    from_text,
    make_token,
    narrowed,
    opened,
    serial_of,
    to_text,
)
from meshslm.core.certificates import ANY, Act, Code, NotAdmitted
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.wire.admission import JoinToken

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
MESH = KEY.public
NOW = 1_800_000_000.0
ME, YOU = NodeId("12D3KooWme"), NodeId("12D3KooWyou")
WHERE = (f"/ip4/192.168.1.7/tcp/7415/p2p/{YOU}",)

rights = st.lists(st.sampled_from(tuple(map(str, Act))), min_size=1, max_size=6, unique=True)
names = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
        lambda name: name != ANY
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


def token(
    *given_rights: str,
    domains: tuple[str, ...] = (ANY,),
    spaces: tuple[str, ...] = (),
    uses: int = 1,
) -> JoinToken:
    given_rights = given_rights or ("submit", "serve")
    grant = Grant(new_serial(), given_rights, domains, spaces, uses, issuer=YOU)
    return from_text(make_token(grant, MESH, KEY, NOW + 3600, WHERE))


def gives(
    held: JoinToken, *, peer: NodeId = ME, at: float = NOW, keys: tuple[bytes, ...] = (MESH,)
) -> Grant:
    wishes = {"rights": held.rights, "domains": held.domains, "namespaces": held.namespaces}
    return opened(held.biscuit, keys, mesh=MESH, peer=peer, unix_s=at, **wishes)


def code_of(held: JoinToken, *, peer: NodeId = ME, at: float = NOW) -> Code:
    with pytest.raises(NotAdmitted) as refusal:
        gives(held, peer=peer, at=at)
    return refusal.value.code


@settings(deadline=None, max_examples=60)
@given(rights, names, names, st.integers(0, 9), st.integers(60, 10**8))
def test_a_token_gives_what_was_put_into_it(
    some: list[str], domains: list[str], spaces: list[str], uses: int, life_s: int
) -> None:
    grant = Grant(new_serial(), tuple(some), tuple(domains), tuple(spaces), uses, life_s, YOU)
    held = from_text(make_token(grant, MESH, KEY, NOW + 60, WHERE))
    found = gives(held)
    assert replace(found, rights=(), domains=(), namespaces=()) == replace(
        grant, rights=(), domains=(), namespaces=()
    )
    assert set(found.rights) == set(some)
    assert set(found.domains) == set(domains)
    assert set(found.namespaces) == set(spaces)
    assert from_text(to_text(held)) == held
    assert serial_of(held) == grant.token.hex()


@settings(deadline=None, max_examples=60)
@given(rights, rights, names, names, names, names)
def test_narrowing_never_gives_more(
    some: list[str],
    fewer: list[str],
    domains: list[str],
    narrower: list[str],
    spaces: list[str],
    closer: list[str],
) -> None:
    held = token(*some, domains=tuple(domains), spaces=tuple(spaces))
    less = narrowed(narrowed(held, rights=tuple(fewer)), domains=tuple(narrower))
    least = narrowed(less, namespaces=tuple(closer))
    wishless = replace(least, rights=(), domains=(), namespaces=())
    found = gives(wishless)
    assert set(found.rights) == set(some) & set(fewer)
    assert set(found.domains) == set(domains) & set(narrower)
    assert set(found.namespaces) == set(spaces) & set(closer)
    before = gives(replace(less, rights=(), domains=()))
    assert set(before.namespaces) == set(spaces), "each is narrowed by itself"


def test_any_domain_is_narrowed_to_some() -> None:
    less = narrowed(token(), domains=("code", "law"))
    assert gives(less).domains == ("code", "law")
    assert gives(narrowed(less, domains=("law", "art"))).domains == ("law",)
    assert not gives(replace(less, domains=("art",))).domains, "the wish is not what counts"


def test_any_namespace_is_narrowed_to_some() -> None:
    less = narrowed(token(spaces=(ANY,)), namespaces=("notes", "plans"))
    assert gives(less).namespaces == ("notes", "plans")
    assert gives(narrowed(less, namespaces=("plans", "art"))).namespaces == ("plans",)
    for wish in (("art",), (ANY,), ()):
        assert not gives(replace(less, namespaces=wish)).namespaces, "the wish is not what counts"


def test_a_widened_namespace_is_refused() -> None:
    some = token(spaces=("notes",))
    assert code_of(replace(some, namespaces=("plans",))) is Code.WIDENED
    assert code_of(replace(some, namespaces=("notes", ANY))) is Code.WIDENED
    assert code_of(narrowed(some, namespaces=("notes", "plans"))) is Code.WIDENED


def test_a_token_runs_out() -> None:
    assert code_of(token(), at=NOW + 3600) is Code.INVITATION_EXPIRED
    sooner = narrowed(token(), expires_unix_s=NOW + 60)
    assert gives(sooner, at=NOW + 59).rights
    assert code_of(sooner, at=NOW + 60) is Code.INVITATION_EXPIRED
    later = narrowed(sooner, expires_unix_s=NOW + 7200)
    assert code_of(later, at=NOW + 60) is Code.INVITATION_EXPIRED


def test_a_token_for_one_node_is_no_use_to_another() -> None:
    mine = narrowed(token(), peer=ME)
    assert gives(mine, peer=ME).rights
    assert code_of(mine, peer=YOU) is Code.INVITATION_INVALID
    assert code_of(narrowed(mine, peer=YOU), peer=YOU) is Code.INVITATION_INVALID


def widened(held: JoinToken, code: str) -> JoinToken:
    """The holder adds a block of its own."""
    import base64

    from biscuit_auth import Algorithm

    plain = UnverifiedBiscuit.from_base64(base64.urlsafe_b64encode(held.biscuit).decode())
    key = PublicKey.from_bytes(KEY.public, Algorithm.Ed25519)
    return replace(held, biscuit=bytes(plain.append(BlockBuilder(code)).verify(key).to_bytes()))


def test_a_block_that_adds_rights_adds_nothing() -> None:
    held = token("submit", domains=("code",), spaces=("notes",))
    facts = 'right("admit"); domain("*"); namespace("*"); uses(0); time(2020-01-01T00:00:00Z);'
    more = widened(held, facts)
    assert gives(more) == gives(held)
    assert code_of(replace(more, namespaces=("plans",))) is Code.WIDENED
    assert code_of(replace(more, rights=("admit",))) is Code.WIDENED
    assert code_of(replace(more, domains=("law",))) is Code.WIDENED
    assert code_of(more, at=NOW + 3600) is Code.INVITATION_EXPIRED


def test_too_many_facts_are_not_worked_through() -> None:
    few = "".join(f"n({i});" for i in range(20))
    many = few + "m($i, $j) <- n($i), n($j);"
    assert gives(widened(token(), few)).rights
    assert code_of(widened(token(), many)) is Code.INVITATION_INVALID


def test_only_the_mesh_can_have_signed_it() -> None:
    held = token()
    with pytest.raises(NotAdmitted) as refusal:
        gives(held, keys=(OTHER.public,))
    assert refusal.value.code is Code.INVITATION_INVALID
    grant = Grant(new_serial(), ("submit",), issuer=YOU)
    foreign = from_text(make_token(grant, OTHER.public, KEY, NOW + 60, WHERE))
    assert code_of(foreign) is Code.OTHER_MESH


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_tokens_are_refused(data: st.DataObject) -> None:
    biscuit = bytearray(token().biscuit)
    place = data.draw(st.integers(0, len(biscuit) - 1))
    biscuit[place] ^= data.draw(st.integers(1, 255))
    try:
        found = gives(replace(token(), biscuit=bytes(biscuit)))
    except NotAdmitted:
        return
    assert found.rights == ("serve", "submit"), "whatever is still read says what was signed"


@given(st.binary(max_size=400))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(NotAdmitted):
        gives(JoinToken(MESH, MESH, junk))


@given(st.text(max_size=200))
def test_any_other_text_is_our_users_mistake(text: str) -> None:
    for candidate in (text, PREFIX + text):
        with pytest.raises(OurFault):
            from_text(candidate)


def test_what_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(OurFault, match="too long"):
        from_text(PREFIX + "A" * 100_000)
    with pytest.raises(NotAdmitted, match="too long"):
        gives(JoinToken(MESH, MESH, bytes(limits.TOKEN_BYTES + 1)))


def test_the_secret_is_in_no_message() -> None:
    text = to_text(token())
    with pytest.raises(OurFault) as fault:
        from_text(text[:-40])
    assert text[20:60] not in str(fault.value)
