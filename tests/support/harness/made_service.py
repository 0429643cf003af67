"""Service descriptors made at run time, for tests that no real service fits."""

from diptych.access.v1 import access_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from tests.support.ledger.stubs import queries


def made_service(
    name: str,
    *,
    rule: access_pb2.Rule | None,
    streams: bool = False,
    request: str = "GetChequeRequest",
    package: str = "test",
) -> ServiceDescriptor:
    """Return the descriptor of a new service `<package>.<name>` with one method `Do`.

    Args:
        name: unique within the process.
        rule: the access rule of the method; None for none.
        streams: whether the method streams its responses.
        request: the message of the ledger that it takes.
        package: of the service.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"test/{name}.proto",
        package=package,
        syntax="proto3",
        dependency=["diptych/access/v1/access.proto", "acme/ledger/v1/query_service.proto"],
    )
    messages = queries.DESCRIPTOR.package
    method = file.service.add(name=name).method.add(
        name="Do",
        input_type=f".{messages}.{request}",
        output_type=f".{messages}.GetChequeResponse",
        server_streaming=streams,
    )
    if rule is not None:
        method.options.Extensions[access_pb2.rule].CopyFrom(rule)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindServiceByName(f"{package}.{name}")
