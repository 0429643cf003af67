"""The `diptych` command line. A failure is one line on stderr; `operations.cli_parts` has the exit codes.

A command's module is imported when it is called, and imports what it needs when it runs, so that each starts
as fast as it can. Most are clients of the operations server; the others need the stores themselves.
"""

import click

from operations.cli_parts import CommandGroup

COMMANDS = {
    "status": "operations.commands.status:status",
    "lag": "operations.commands.projections:lag",
    "projections": "operations.commands.projections:projections",
    "dead-letters": "operations.commands.dead_letters:dead_letters",
    "requests": "operations.commands.records:requests",
    "refused": "operations.commands.records:refused",
    "events": "operations.commands.events:events",
    "state": "operations.commands.records:state",
    "explain": "operations.commands.records:explain",
    "sagas": "operations.commands.sagas:sagas",
    "migrate": "operations.commands.stores:migrate",
    "restored": "operations.commands.stores:restored",
    "forget": "operations.commands.subjects:forget",
    "export-subject": "operations.commands.subjects:export_subject",
    "verify": "operations.commands.stores:verify",
    "audit": "operations.commands.audit:audit",
    "rehearse": "operations.commands.rehearse:rehearse",
    "housekeeping": "operations.commands.stores:housekeeping",
    "keys": "operations.commands.keys:keys",
    "provision": "operations.commands.provision:provision",
    "new": "operations.commands.contexts:new",
    "generate": "operations.commands.contexts:generate",
}


@click.group(cls=CommandGroup, modules=COMMANDS)
@click.version_option(package_name="diptych", message="%(prog)s %(version)s")
def main() -> None:
    """Operate Diptych. DIPTYCH_OPERATIONS_ADDRESS and DIPTYCH_OPERATIONS_TOKEN name the operations server.

    Exit codes: 0 fine, 1 not fine, 2 a server could not be asked or an argument is invalid.
    """


if __name__ == "__main__":
    main()
