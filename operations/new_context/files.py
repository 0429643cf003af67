"""The files of a new context, rendered from the templates for one of two places.

`INSIDE` is this repository, where a context has one module in each process. `OUTSIDE` is a repository of its
own, whose package holds all modules of the context.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from operations.new_context.naming import Names

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Place:
    """A repository for contexts. `{context}` and `{aggregate}` in its paths and modules are placeholders.

    Args:
        package: the Protobuf package, which is also the Python package of the stubs.
        go_package: the option of the same name in the protos.
        modules: the Python module of each part of a context, by the part's variable in the templates.
        files: the path of each file by its template's path, which is given without the ending `.txt`.
    """

    package: str
    go_package: str
    modules: Mapping[str, str]
    files: Mapping[str, str]

    def list_paths(self, names: Names) -> list[str]:
        """Return the paths of a context's files from the root of the repository."""
        return [self._substitute(path, names) for path in self.files.values()]

    def render(self, names: Names) -> dict[str, str]:
        """Return the texts of a context's files by path from the root of the repository."""
        variables = names.to_variables() | {
            variable: self._substitute(module, names) for variable, module in self.modules.items()
        }
        variables["package"] = self._substitute(self.package, names)
        variables["go_package"] = self._substitute(self.go_package, names)
        variables["proto_folder"] = variables["package"].replace(".", "/")
        return {
            self._substitute(path, names): Template((TEMPLATES / f"{template}.txt").read_text()).substitute(
                variables
            )
            for template, path in self.files.items()
        }

    def _substitute(self, text: str, names: Names) -> str:
        return text.format(context=names.context, aggregate=names.aggregate)


def _map_protos(folder: str) -> dict[str, str]:
    kinds = ("types", "events", "command_service", "query_service")
    return {f"protos/{kind}.proto": f"{folder}/{kind}.proto" for kind in kinds}


INSIDE = Place(
    package="diptych.{context}.v1",
    go_package="diptych.internal/stubs/{context}/v1;{context}v1",
    modules={
        "events": "contracts.events.{context}",
        "commands": "command_server.contexts.{context}",
        "projections": "projector.projections.{context}",
        "queries": "query_server.contexts.{context}",
        "sagas": "process_manager.sagas.{context}",
        "verification": "operations.verify.contexts.{context}",
    },
    files={
        **_map_protos("protos/diptych/{context}/v1"),
        "manifest.py": "contracts/contexts/{context}.py",
        "events.py": "contracts/events/{context}.py",
        "commands/__init__.py": "command_server/contexts/{context}/__init__.py",
        "commands/domain/__init__.py": "command_server/contexts/{context}/domain/__init__.py",
        "commands/domain/aggregate.py": "command_server/contexts/{context}/domain/{aggregate}.py",
        "projections/__init__.py": "projector/projections/{context}/__init__.py",
        "projections/aggregate.py": "projector/projections/{context}/{aggregate}.py",
        "queries.py": "query_server/contexts/{context}.py",
        "sagas.py": "process_manager/sagas/{context}.py",
        "verification.py": "operations/verify/contexts/{context}.py",
        "tests/test_rules.py": "tests/unit/contexts/test_{context}.py",
        "tests/test_projection.py": "tests/unit/projections/test_{context}.py",
        "tests/test_saga.py": "tests/unit/sagas/test_{context}.py",
        "tests/test_verification.py": "tests/unit/operations/test_verify_{context}.py",
    },
)
OUTSIDE = Place(
    package="{context}.v1",
    go_package="{context}.internal/stubs/v1;{context}v1",
    modules={
        part: f"{{context}}.{part}"
        for part in ("events", "commands", "projections", "queries", "sagas", "verification")
    },
    files={
        **_map_protos("protos/{context}/v1"),
        "manifest.py": "{context}/manifest.py",
        "events.py": "{context}/events.py",
        "commands/__init__.py": "{context}/commands/__init__.py",
        "commands/domain/__init__.py": "{context}/commands/domain/__init__.py",
        "commands/domain/aggregate.py": "{context}/commands/domain/{aggregate}.py",
        "projections/__init__.py": "{context}/projections/__init__.py",
        "projections/aggregate.py": "{context}/projections/{aggregate}.py",
        "queries.py": "{context}/queries.py",
        "sagas.py": "{context}/sagas.py",
        "verification.py": "{context}/verification.py",
        "tests/test_rules.py": "tests/test_rules.py",
        "tests/test_projection.py": "tests/test_projection.py",
        "tests/test_saga.py": "tests/test_saga.py",
        "tests/test_verification.py": "tests/test_verification.py",
        "outside/package.py": "{context}/__init__.py",
        "outside/pyproject.toml": "pyproject.toml",
        "outside/Makefile": "Makefile",
        "outside/README.md": "README.md",
        "outside/gitignore": ".gitignore",
        "outside/conftest.py": "tests/conftest.py",
        "outside/test_stack.py": "tests/test_stack.py",
    },
)
