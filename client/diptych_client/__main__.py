"""Prints the service config, for callers in other languages: `python -m diptych_client [PACKAGE ...]`."""

import json
import sys

from diptych_client.service_config import service_config

try:
    sys.stdout.write(json.dumps(service_config(*sys.argv[1:]), indent=2) + "\n")
except ModuleNotFoundError as error:
    sys.exit(f"diptych_client: {error}")
