"""What a theorem is, and the theorems by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from numbelief.online.audit import Assumption, Vector

Terms = dict[str, Vector]
Findings = tuple[str, Terms, list[Assumption]]
Evaluation = TypeVar("Evaluation", bound=Callable[..., Findings])


@dataclass(frozen=True)
class Theorem:
    """A function that evaluates a theorem, whom it is about, and its variants."""

    function: Callable[..., Findings]
    methods: tuple[type, ...]
    variants: tuple[str, ...]


#: The theorems by name.
registry: dict[str, Theorem] = {}


def theorem(
    name: str, *methods: type, variants: tuple[str, ...] = ("corrected", "printed")
) -> Callable[[Evaluation], Evaluation]:
    """Register a function as the theorem of a name about these methods.

    The function takes an `Audit`, whether the printed variant is asked for and, in the case of the
    certificate, a comparator. It returns the bound in one line, its terms, and the assumptions that
    it checked.
    """

    def register(function: Evaluation) -> Evaluation:
        registry[name] = Theorem(function, methods, variants)
        return function

    return register
