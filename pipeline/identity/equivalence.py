"""What follows from declarations that two states of the code train alike (docs/design/identity.md).

Whole closures are called equal, not modules: where a factor moved from one module to another, each module's two states
are equal only together with the other's.
"""

from collections import defaultdict, deque
from pathlib import Path

from pipeline.identity.code import CodeIdentity
from pipeline.identity.imports import ROOT
from pipeline.results import CodeEquivalence

FILE = "pipeline/code-equivalence.json"
"""Below the root: it goes wherever the code goes."""
UNDECLARED = "no declaration calls it equal to today's"


def read_equivalence(root: Path = ROOT) -> CodeEquivalence:
    """The project's declarations; none where there is no file.

    Raises:
        ArtifactError: the file is not what `harmless` writes.
    """
    path = root / FILE
    if not path.is_file():
        return CodeEquivalence()
    return CodeEquivalence.read(path, "restore it with `git checkout`")


def canonical(code: str, equivalence: CodeEquivalence) -> str:
    """The hash that stands for all code that is declared equal to one: the oldest."""
    older: dict[str, str] = {}

    def oldest(one: str) -> str:
        while one in older:
            one = older[one]
        return one

    for declaration in equivalence.declarations:
        for pair in declaration.equal.values():
            before, after = oldest(pair.before), oldest(pair.after)
            if before != after:
                older[after] = before
    return oldest(code)


def trained_by_other_code(trained: str, today: CodeIdentity, equivalence: CodeEquivalence) -> tuple[str, ...]:
    """Why a row stands though other code than today's trained it.

    Args:
        trained: hash of the code that trained it, as its result keeps it.
        today: the code of a trial of that kind.

    Returns:
        The reasons of the declarations that lead from one code to the other; UNDECLARED alone where none do; empty
        where they are one code.
    """
    steps: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for declaration in equivalence.declarations:
        for pair in declaration.equal.values():
            steps[pair.before].append((pair.after, declaration.reason))
            steps[pair.after].append((pair.before, declaration.reason))
    reasons: dict[str, tuple[str, ...]] = {trained: ()}
    todo = deque([trained])
    while todo and today.hash not in reasons:
        here = todo.popleft()
        for there, reason in steps[here]:
            if there not in reasons:
                reasons[there] = (*reasons[here], reason)
                todo.append(there)
    return reasons.get(today.hash, (UNDECLARED,))
