"""Reads the rules of protos out of their descriptors, which keep them as options that nobody knows.

The extensions come from protovalidate, in a pool of their own: a package `buf.validate` that another library
installs is neither needed nor disturbed (docs/adr/0017). The module of protovalidate is private;
tests/unit/runtime/test_rule_checks.py fails if it moves.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from protovalidate._gen.buf.validate import validate_pb


@cache
def _pool() -> Any:
    pool = DescriptorPool()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(validate_pb.desc().proto.to_binary())
    return pool


def read_rules(described: Any, kind: str) -> Any:
    """Return the rules of a descriptor: a message of buf.validate, empty if it has none.

    Args:
        described: the descriptor.
        kind: what it describes: `message`, `oneof` or `field`.
    """
    options = described.GetOptions()
    known = GetMessageClass(_pool().FindMessageTypeByName(options.DESCRIPTOR.full_name))
    parsed = known.FromString(options.SerializeToString())
    return parsed.Extensions[_pool().FindExtensionByName(f"buf.validate.{kind}")]
