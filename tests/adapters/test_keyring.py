"""A node's key on disk, its id, and the lock of its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from meshslm.adapters import libp2p_library as library
from meshslm.adapters.keyring import (
    KEY_FILE,
    LOCK_FILE,
    DirectoryLock,
    NodeKey,
    load_or_create,
)
from meshslm.errors import OurFault


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = load_or_create(tmp_path / "data")
    path = tmp_path / "data" / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert load_or_create(tmp_path / "data") == first
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [KEY_FILE]  # noqa: PTH208 - names are what is compared


def test_two_folders_are_two_nodes(tmp_path: Path) -> None:
    one, two = load_or_create(tmp_path / "one"), load_or_create(tmp_path / "two")
    assert one.node_id != two.node_id


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        load_or_create(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


@given(st.binary(min_size=32, max_size=32))
def test_the_id_is_the_one_libp2p_derives(secret: bytes) -> None:
    key = NodeKey.from_secret(secret)
    public = library.Ed25519PrivateKey.from_bytes(secret).get_public_key()
    assert public.to_bytes() == key.public
    assert library.ID.from_pubkey(public).to_base58() == key.node_id


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    assert repr(key.secret) not in repr(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create(tmp_path)
    path = tmp_path / KEY_FILE
    path.chmod(mode)
    with pytest.raises(OurFault, match=f"chmod 600 {path}"):
        load_or_create(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 60, 100])
def test_a_truncated_key_is_refused_and_kept(tmp_path: Path, keep: int) -> None:
    load_or_create(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(OurFault, match="damaged"):
        load_or_create(tmp_path)
    assert path.stat().st_size == keep


@pytest.mark.parametrize("kind", ["rsa", "x25519"])
def test_a_key_of_another_type_is_refused(tmp_path: Path, kind: str) -> None:
    key = (
        rsa.generate_private_key(65537, 2048)
        if kind == "rsa"
        else x25519.X25519PrivateKey.generate()
    )
    path = tmp_path / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(OurFault, match="not an Ed25519 key"):
        load_or_create(tmp_path)


def test_a_folder_that_is_a_file_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OurFault, match="cannot use the node key"):
        load_or_create(tmp_path / "file")
    with pytest.raises(OurFault, match=r"cannot make the data folder .*/file: "):
        DirectoryLock(tmp_path / "file").acquire()


def test_a_lock_that_cannot_be_opened_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "node.lock").mkdir()
    with pytest.raises(OurFault, match="cannot lock"):
        DirectoryLock(tmp_path).acquire()


def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(OurFault, match=f"by process {os.getpid()}"):
        DirectoryLock(tmp_path).acquire()
    with DirectoryLock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from meshslm.adapters.keyring import DirectoryLock\n"
        "DirectoryLock(pathlib.Path(sys.argv[1])).acquire()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, cwd=root)
    assert int((tmp_path / LOCK_FILE).read_text()) != os.getpid()
    with DirectoryLock(tmp_path):
        pass
