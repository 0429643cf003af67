"""Prints the service config, for callers in other languages: `python -m diptych_client`."""

import json
import sys

from diptych_client.service_config import service_config

sys.stdout.write(json.dumps(service_config(), indent=2) + "\n")
