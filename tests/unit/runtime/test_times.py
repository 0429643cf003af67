"""Times out of range are found in every field that can hold one: nested, repeated, in maps and in cycles."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2
from google.protobuf.message_factory import GetMessageClass

from runtime.grpc.times import build_finder
from tests.support.builders.hostile_fields import EXTREME_TIMES, INVALID_DURATIONS, INVALID_TIMES

TIMESTAMP, DURATION = (each.DESCRIPTOR.full_name for each in (timestamp_pb2.Timestamp, duration_pb2.Duration))


def make_types() -> dict[str, Any]:
    """Return message types by name: `Tree` holds times in all ways, and itself; `Loop` only itself."""
    file = descriptor_pb2.FileDescriptorProto(name="times.proto", package="times", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/duration.proto"])
    label = descriptor_pb2.FieldDescriptorProto
    tree = file.message_type.add(name="Tree")
    for number, (name, type_, repeated) in enumerate(
        [
            ("at", TIMESTAMP, False),
            ("took", DURATION, False),
            ("all", TIMESTAMP, True),
            ("child", "times.Tree", False),
            ("children", "times.Tree", True),
            ("by_name", "times.Tree.ByNameEntry", True),
            ("loop", "times.Loop", False),
        ],
        start=1,
    ):
        tree.field.add(
            name=name,
            number=number,
            type=label.TYPE_MESSAGE,
            type_name=f".{type_}",
            label=label.LABEL_REPEATED if repeated else label.LABEL_OPTIONAL,
        )
    entry = tree.nested_type.add(name="ByNameEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=label.TYPE_STRING, label=label.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=label.TYPE_MESSAGE,
        type_name=f".{TIMESTAMP}",
        label=label.LABEL_OPTIONAL,
    )
    loop = file.message_type.add(name="Loop")
    loop.field.add(
        name="next",
        number=1,
        type=label.TYPE_MESSAGE,
        type_name=".times.Loop",
        label=label.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"times.{name}")) for name in ("Tree", "Loop")}


TYPES = make_types()
FIND: Any = build_finder(TYPES["Tree"].DESCRIPTOR)


@pytest.mark.parametrize(("seconds", "nanos"), INVALID_TIMES)
def test_an_invalid_timestamp_is_found_wherever_it_is(seconds: int, nanos: int) -> None:
    tree = TYPES["Tree"]()
    invalid = {"seconds": seconds, "nanos": nanos}
    for holder in (tree, tree.child.child.child, tree.children.add()):
        holder.at.seconds, holder.at.nanos = seconds, nanos
    tree.all.add()
    tree.all.add(**invalid)
    tree.by_name["a"].seconds, tree.by_name["a"].nanos = seconds, nanos
    assert set(FIND(tree, "")) == {
        "at",
        "child.child.child.at",
        "children[0].at",
        "all[1]",
        "by_name[a]",
    }


@pytest.mark.parametrize(("seconds", "nanos"), INVALID_DURATIONS)
def test_an_invalid_duration_is_found(seconds: int, nanos: int) -> None:
    tree = TYPES["Tree"]()
    tree.took.seconds, tree.took.nanos = seconds, nanos
    assert list(FIND(tree, "")) == ["took"]


@pytest.mark.parametrize(("seconds", "nanos"), EXTREME_TIMES)
def test_the_first_and_the_last_time_are_valid(seconds: int, nanos: int) -> None:
    tree = TYPES["Tree"]()
    tree.at.seconds, tree.at.nanos = seconds, nanos
    tree.took.seconds, tree.took.nanos = -315_576_000_000, -999_999_999
    assert list(FIND(tree, "")) == []


def test_a_type_without_times_has_no_finder() -> None:
    assert build_finder(TYPES["Loop"].DESCRIPTOR) is None
