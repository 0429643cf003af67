"""The names of a new context: of the context itself, and of its first aggregate."""

import ast
import builtins
import re
from dataclasses import dataclass
from functools import cached_property
from keyword import iskeyword

from runtime.process.start_error import StartError

VALID = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
MAX_LENGTH = 20
"""In characters, so that every line of every template stays within the line limit."""
PACKAGES = frozenset({"buf", "diptych", "google"})
"""First parts of other Protobuf packages. Inside a context of the same name, Protobuf would resolve them to
the context's own package."""
OTHER_LANGUAGES = re.compile(
    r"abstract|boolean|byte|case|catch|char|const|default|do|double|enum|extends|final|goto|implements|instanceof"
    r"|interface|internal|long|native|new|package|private|protected|public|short|static|strictfp|super|switch"
    r"|synchronized|this|throw|throws|transient|void|volatile"
)
"""Names that no Java package can have, and `internal`, which Go lets nobody import."""


@dataclass(frozen=True)
class Names:
    """The names of a context and of its aggregate in every form that the templates need.

    Raises:
        StartError: a name is not a lower-case identifier, or is reserved.
    """

    context: str
    aggregate: str

    def __post_init__(self) -> None:
        for variable, name, example in (
            ("NAME", self.context, "loyalty or gift_cards"),
            ("AGGREGATE", self.aggregate, "member or gift_card"),
        ):
            if not VALID.fullmatch(name) or len(name) > MAX_LENGTH:
                expected = f"a lower-case identifier of at most {MAX_LENGTH} characters, like {example}"
                raise StartError(f"{variable}: {name!r} is not {expected}")
            if not name[:2].isalpha() or len(name) < 2:
                raise StartError(f"{variable}: {name!r} must begin with two letters, like {example}")
            if _is_reserved(name):
                raise StartError(f"{variable}: {name} is reserved by Python, Protobuf, Java or Go")

    @cached_property
    def plural(self) -> str:
        """The plural of the aggregate, by the rules of English spelling."""
        if re.search(r"([sxz]|[cs]h)$", self.aggregate):
            return f"{self.aggregate}es"
        if re.search(r"[^aeiou]y$", self.aggregate):
            return f"{self.aggregate[:-1]}ies"
        return f"{self.aggregate}s"

    def to_variables(self) -> dict[str, str]:
        """Return the values of the templates' variables that are the same in every repository."""
        noun, nouns = self.aggregate.replace("_", " "), self.plural.replace("_", " ")
        article = "an" if noun[0] in "aeiou" else "a"
        return {
            "context": self.context,
            "aggregate": self.aggregate,
            "aggregates": self.plural,
            "Aggregate": _to_class_name(self.aggregate),
            "Aggregates": _to_class_name(self.plural),
            "AGGREGATE": self.aggregate.upper(),
            "AGGREGATES": self.plural.upper(),
            "noun": noun,
            "nouns": nouns,
            "a_noun": f"{article} {noun}",
            "a_noun_identifier": f"{article}_{self.aggregate}",
            "A_noun": f"{article.capitalize()} {noun}",
        }


def _is_reserved(name: str) -> bool:
    return (
        iskeyword(name)
        or hasattr(builtins, name)
        or name in PACKAGES
        or OTHER_LANGUAGES.fullmatch(name) is not None
    )


def _to_class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def find_names(source: str) -> set[str]:
    """Return all names that a module binds or reads."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=alias):
                names.add(alias or name.partition(".")[0])
    return names
