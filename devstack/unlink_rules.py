"""Removes the import of buf/validate/validate.proto from descriptors (docs/adr/0016).

Modules generated from the result need no package `buf`. The rules stay in the descriptors, as options that
protobuf keeps without knowing them and that protovalidate reads.

    python -m devstack.unlink_rules DESCRIPTORS

DESCRIPTORS is a file with a google.protobuf.FileDescriptorSet, which is replaced.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

RULES = "buf/validate/validate.proto"


def main(path: Path) -> None:
    descriptors = FileDescriptorSet.FromString(path.read_bytes())
    for file in descriptors.file:
        if file.public_dependency or file.weak_dependency:  # they are indexes of dependencies
            sys.exit(f"{file.name}: public and weak imports are not supported")
        if RULES in file.dependency:
            file.dependency.remove(RULES)
    path.write_bytes(descriptors.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
