"""Proofs that an event is on record, checked without the servers.

A proof leads from the event's bytes over its digest and a path of hashes to a checkpoint, and from there over
another path to the root in a later checkpoint, which is signed. `docs/audit.md` describes the formats.
"""

from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from hashlib import sha256

from diptych.operations.v1.proofs_pb2 import EventProof


class InvalidProof(ValueError):
    """A proof does not show that its event is on record."""


def verify_event_proof(proof: EventProof, public_keys: Mapping[str, bytes], kept: str = "") -> None:
    """Check that an event is on record exactly as a proof says.

    Needs the package cryptography (the extra `diptych-client[proofs]`).

    Args:
        proof: from `GetEventProof` of the operations server.
        public_keys: 32 bytes for each key, by its id, as `diptych keys public` prints them.
        kept: the text of a checkpoint that you kept: the proof must end in this one.

    Raises:
        InvalidProof: the proof does not show it.
    """
    try:
        _verify(proof, public_keys, kept)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, InvalidProof):
            raise
        raise InvalidProof("the proof is malformed") from error


def _verify(proof: EventProof, public_keys: Mapping[str, bytes], kept: str) -> None:
    segment = _read_lines(proof.entry)["segment events"].split(" ")
    after, until, rows = map(int, segment[:3])
    if not after < proof.position <= until:
        raise InvalidProof("the checkpoint does not cover the event's position")
    leaf = sha256(b"\0" + proof.position.to_bytes(8, "big", signed=True) + _digest(proof)).digest()
    if _climb(leaf, proof.index, rows, proof.path).hex() != segment[3]:
        raise InvalidProof("the event is not among those that the checkpoint covers")
    number, later = int(_read_lines(proof.entry)["number"]), _read_lines(proof.checkpoint)
    entry = sha256(b"\0" + proof.entry.encode()).digest()
    if _climb(entry, number - 1, int(later["number"]), proof.checkpoint_path).hex() != later["root"]:
        raise InvalidProof("the later checkpoint does not cover the one of the event")
    if kept and kept != proof.checkpoint:
        raise InvalidProof("the proof does not end in the kept checkpoint")
    _check_signature(proof.checkpoint, later, public_keys)


def _digest(proof: EventProof) -> bytes:
    """Return the digest of the event: SHA-256 over its fields, each with its length before it."""
    time = proof.recorded_time.seconds * 1_000_000 + proof.recorded_time.nanos // 1_000
    integers = [value.to_bytes(8, "big", signed=True) for value in (proof.version, time)]
    fields = [
        *(b"event 1", proof.previous_digest, proof.stream.encode(), integers[0], proof.type.encode()),
        *(integers[1], proof.metadata.encode(), proof.data),
    ]
    return sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()


def _climb(node: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root of a Merkle tree (RFC 6962) with a node at an index of its lowest level."""
    if not 0 <= index < size:
        raise InvalidProof("the index is outside of the tree")
    siblings = list(path)
    while size > 1:
        if index ^ 1 < size:
            sibling = siblings.pop(0)
            node = sha256(b"\1" + (sibling + node if index % 2 else node + sibling)).digest()
        index, size = index // 2, (size + 1) // 2
    if siblings:
        raise InvalidProof("the path is too long")
    return node


def _read_lines(text: str) -> dict[str, str]:
    """Return the values of a checkpoint's lines by their names; those of segments by `segment <record>`."""
    if not text.startswith("diptych checkpoint 1\n"):
        raise InvalidProof("this is no checkpoint")
    values = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(" ")
        if name == "segment":
            record, _, value = value.partition(" ")
            name = f"segment {record}"
        if name in values:
            raise InvalidProof("a line of the checkpoint is repeated")
        values[name] = value
    return values


def _check_signature(text: str, lines: Mapping[str, str], public_keys: Mapping[str, bytes]) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if lines["key"] not in public_keys:
        raise InvalidProof(f"the key {lines['key']} is not known")
    signed = text[: text.index("signature ")].encode()
    try:
        Ed25519PublicKey.from_public_bytes(public_keys[lines["key"]]).verify(
            urlsafe_b64decode(lines["signature"]), signed
        )
    except InvalidSignature:
        raise InvalidProof("the signature of the checkpoint is not valid") from None
