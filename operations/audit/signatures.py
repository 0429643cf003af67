"""Signatures of checkpoints, and the public keys that verify them."""

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path

from contracts.audit.checkpoint import Checkpoint
from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.start_error import StartError

KEY_SIZE = 32


def is_signed(checkpoint: Checkpoint, public_keys: Mapping[str, bytes]) -> bool:
    """Return whether one of the keys has signed a checkpoint."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = public_keys.get(checkpoint.key_id)
    if key is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(checkpoint.signature, checkpoint.to_signed())
    except InvalidSignature:
        return False
    return True


def read_public_keys(path: Path) -> dict[str, bytes]:
    """Return the public keys of a file as `diptych keys public` prints it.

    Raises:
        StartError: it is no such file.
    """
    try:
        lines = [line.split() for line in read_regular_file(path).decode().splitlines() if line.strip()]
        keys = {id_: urlsafe_b64decode(key) for id_, key in lines}
    except UNUSABLE as error:
        raise StartError(f"{path}: no public keys: {error}") from error
    if not keys or any(len(key) != KEY_SIZE for key in keys.values()):
        raise StartError(f"{path}: no public keys: a line is a key's id and {KEY_SIZE} bytes in Base64")
    return keys


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises:
        StartError: there is none.
    """
    try:
        return Checkpoint.parse(read_regular_file(path).decode())
    except UNUSABLE as error:
        raise StartError(f"{path}: {error}") from error
