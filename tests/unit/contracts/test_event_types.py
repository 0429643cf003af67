"""Events of every version are decoded to the newest, and gaps between the versions prevent the start."""

from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from command_server.kernel.ports import StoredEvent
from contracts.event_types import EventTypes, UnknownEvent
from contracts.upcasters import Upcaster

POOL = DescriptorPool()


def create_module(version: int, *names: str) -> Any:
    """Return a module as protoc generates it, with messages that have one text field."""
    file = FileDescriptorProto(name=f"toy/v{version}.proto", package=f"toy.v{version}", syntax="proto3")
    for name in names:
        file.message_type.add(name=name).field.add(
            name="text", number=1, type=FieldDescriptorProto.TYPE_STRING, label=1
        )
    POOL.Add(file)
    module: Any = ModuleType(f"toy.v{version}")
    module.DESCRIPTOR = POOL.FindFileByName(file.name)
    for name in names:
        setattr(module, name, GetMessageClass(module.DESCRIPTOR.message_types_by_name[name]))
    return module


V1 = create_module(1, "Opened", "Renamed", "Part")
V2 = create_module(2, "Opened", "Retitled")
V3 = create_module(3, "Opened")


def upcaster(source: type[Message], target: type[Message]) -> Upcaster:
    """Return an upcaster that adds the target's package to the text."""
    suffix = f" {target.DESCRIPTOR.file.package}"
    return Upcaster(source, target, lambda older: target(text=older.text + suffix))


TO_2, TO_3 = upcaster(V1.Opened, V2.Opened), upcaster(V2.Opened, V3.Opened)
RENAMING = upcaster(V1.Renamed, V2.Retitled)
EVENTS = EventTypes((V1, V2, V3), (TO_3, RENAMING, TO_2))


@pytest.mark.parametrize(
    ("older", "newest"),
    [
        (V1.Opened(text="a"), V3.Opened(text="a toy.v2 toy.v3")),
        (V2.Opened(text="a"), V3.Opened(text="a toy.v3")),
        (V3.Opened(text="a"), V3.Opened(text="a")),
        (V1.Renamed(text="b"), V2.Retitled(text="b toy.v2")),
        (V1.Part(text="c"), V1.Part(text="c")),
    ],
    ids=lambda message: message.DESCRIPTOR.full_name,
)
def test_an_event_of_any_version_is_decoded_to_the_newest(older: Message, newest: Message) -> None:
    name = older.DESCRIPTOR.full_name
    assert EVENTS.decode(StoredEvent(name, older.SerializeToString())) == newest
    assert EVENTS.newest(name) is type(newest)
    assert EVENTS.find_newest(newest.DESCRIPTOR.name) is type(newest)
    assert name in EVENTS.list_versions(type(newest))


def test_the_newest_version_is_parsed_by_protobuf_alone() -> None:
    assert EVENTS.get_parser("toy.v3.Opened") == V3.Opened.FromString


@pytest.mark.parametrize("name", ["toy.v4.Opened", "toy.v2.Renamed", ""])
def test_an_event_that_is_not_in_the_modules_is_unknown(name: str) -> None:
    assert name not in EVENTS
    with pytest.raises(UnknownEvent, match=r"is not an event of toy\.v1 or toy\.v2 or toy\.v3"):
        EVENTS.decode(StoredEvent(name, b""))


def test_malformed_data_is_a_decode_error_in_every_version() -> None:
    for name in ("toy.v1.Opened", "toy.v3.Opened"):
        with pytest.raises(DecodeError):
            EVENTS.decode(StoredEvent(name, b"\xff\xff"))


def test_only_the_newest_version_can_be_required() -> None:
    EVENTS.check_newest(V3.Opened, V2.Retitled)
    with pytest.raises(ValueError, match=r"v1\.Renamed is read as its newest version, toy\.v2\.Retitled"):
        EVENTS.check_newest(V1.Renamed)
    with pytest.raises(ValueError, match=r"toy\.v1\.Opened is not an event of toy\.v3"):
        EventTypes((V3,)).check_newest(V1.Opened)


@pytest.mark.parametrize(
    ("modules", "upcasters", "reason"),
    [
        ((V1, V2), (), r"no upcaster leads from toy\.v1\.Opened to toy\.v2\.Opened"),
        ((V1, V2, V3), (TO_2,), r"no upcaster leads from toy\.v2\.Opened to toy\.v3\.Opened"),
        ((V1,), (TO_2,), r"toy\.v2\.Opened has an upcaster, but is not in the modules"),
        ((V2, V3), (TO_2, TO_3), r"toy\.v1\.Opened has an upcaster, but is not in the modules"),
        ((V1, V2), (TO_2, TO_2, upcaster(V1.Opened, V2.Retitled)), "two upcasters convert"),
        ((V1, V2), (upcaster(V2.Opened, V1.Opened),), r"to an older toy\.v1\.Opened"),
        ((V1,), (upcaster(V1.Opened, V1.Part), upcaster(V1.Part, V1.Opened)), "lead in a circle"),
        ((V1,), (upcaster(V1.Opened, V1.Opened),), r"toy\.v1\.Opened lead in a circle"),
    ],
    ids=["none", "gap", "no target", "no source", "two", "backwards", "circle", "to itself"],
)
def test_upcasters_that_do_not_lead_to_the_newest_prevent_the_start(
    modules: tuple[ModuleType, ...], upcasters: tuple[Upcaster, ...], reason: str
) -> None:
    with pytest.raises(TypeError, match=reason):
        EventTypes(modules, upcasters)
