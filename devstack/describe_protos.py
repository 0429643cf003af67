"""Writes the descriptors from which `make stubs` generates stubs: `python -m devstack.describe_protos OUT`.

OUT gets a serialised FileDescriptorSet of the repository's protos, without buf's rules (docs/adr/0017).
"""

import sys
from pathlib import Path

from operations.generate import describe
from runtime.process.start_error import StartError

if __name__ == "__main__":
    try:
        Path(sys.argv[1]).write_bytes(describe(Path("protos"), [Path(".cache/protos")])[1])
    except StartError as error:
        sys.exit(f"describe_protos: {error}")
