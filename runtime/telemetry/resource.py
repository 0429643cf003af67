"""The resource: the attributes that distinguish a process in traces, metrics and logs."""

import os
from uuid import uuid4

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    SERVICE_VERSION,
    TELEMETRY_SDK_LANGUAGE,
    TELEMETRY_SDK_NAME,
    TELEMETRY_SDK_VERSION,
    OsResourceDetector,
    ProcessResourceDetector,
    Resource,
    _HostResourceDetector,  # its public form is an entry point
    get_aggregated_resources,
)
from opentelemetry.sdk.version import __version__ as sdk_version

from runtime.process.version import VERSION
from runtime.telemetry.variables import read_pairs, read_text

NAMESPACE = "diptych"
DEPLOYMENT_ENVIRONMENT = "deployment.environment.name"

_SDK = {
    TELEMETRY_SDK_NAME: "opentelemetry",
    TELEMETRY_SDK_LANGUAGE: "python",
    TELEMETRY_SDK_VERSION: sdk_version,
}


def create_resource(service: str, environment: str, worker: bool) -> Resource:
    """Return the process's attributes: its own, those of host and system, and those of the environment.

    OTEL_RESOURCE_ATTRIBUTES overrides all of them, and OTEL_SERVICE_NAME the service's name.

    Args:
        service: the process's name.
        environment: the deployment, for instance `production`; empty for none.
        worker: whether this process is one of several with the same variables. Its pid is then appended to
            a `service.instance.id` of OTEL_RESOURCE_ATTRIBUTES, so that no two processes share one.

    Raises:
        InvalidSetting: OTEL_RESOURCE_ATTRIBUTES is malformed.
    """
    own = {**_SDK, SERVICE_NAME: service, SERVICE_NAMESPACE: NAMESPACE, SERVICE_VERSION: VERSION}
    own[SERVICE_INSTANCE_ID] = str(uuid4())
    if environment:
        own[DEPLOYMENT_ENVIRONMENT] = environment
    given = dict(read_pairs("OTEL_RESOURCE_ATTRIBUTES"))
    if worker and given.get(SERVICE_INSTANCE_ID):
        given[SERVICE_INSTANCE_ID] += f"-{os.getpid()}"
    if name := read_text("OTEL_SERVICE_NAME")[1]:
        given[SERVICE_NAME] = name
    detectors = [OsResourceDetector(), _HostResourceDetector(), ProcessResourceDetector()]
    return get_aggregated_resources(detectors, Resource(own)).merge(Resource(given))
