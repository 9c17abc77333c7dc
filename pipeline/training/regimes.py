"""The entries of params.yaml's `methods`: a method with its regime (docs/design/recipes.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import ParamsError, unknown
from pipeline.settings import Block, Name
from pipeline.tasks.task import Modality
from pipeline.training.methods import METHODS, MethodInfo

Heads = Literal["shared_pooler", "own_pooler", "linear"]


class MethodSettings(Block):
    """One entry of params.yaml's `methods`; a setting that is not given is the method's own."""

    recipe: Name | None = None
    """Method that the entry trains with, where the entry has another name."""
    parent: Name | None = None
    """Entry whose selected trial it starts from, instead of the one named as its method's parent."""
    weights: Literal["ascending", "uniform", "descending"] | None = None
    """Weights of the exits' losses: by depth (the paper, equation 6; joint's own), equal (MSDNet, Huang et al. 2018;
    alternating's own), or by depth reversed (BranchyNet, Teerapittayanon et al. 2016, weighs its first exit most)."""
    gradients: Literal["plain", "equilibrium"] | None = None
    """equilibrium: a layer's gradient is the mean over the exits behind it, not their sum (Li et al. 2019)."""
    heads: Heads | None = None
    """Texts: what stands between a layer and its exit's linear classifier. shared_pooler: the backbone's tanh pooler,
    one for all exits (the paper's code). own_pooler: a pooler for each exit (DeeBERT's code), which starts as the
    backbone's, or with ElasticBERT as its layer's. linear: nothing."""


@dataclass(frozen=True)
class Method:
    """A complete entry of `methods`.

    Attributes:
        info: the method that it trains with.
        parent: entry that it starts from.
        regime: its settings of training that are not its method's own.
        modalities: modalities of the tasks that it serves.
    """

    name: str
    info: MethodInfo
    parent: str | None
    regime: Mapping[str, str]
    modalities: tuple[Modality, ...]


def resolve_methods(entries: Mapping[str, MethodSettings]) -> dict[str, Method]:
    """The complete methods of the entries of `methods`.

    Raises:
        ParamsError: an unknown method, a setting that means nothing to it, a parent that is missing or no start for it,
            or an entry that is another one under another name.
    """
    methods = {name: _method(name, settings) for name, settings in entries.items()}
    seen: dict[tuple[object, ...], str] = {}
    for name, method in methods.items():
        if method.parent is not None:
            methods[name] = _served(method, methods)
        same = (method.info.name, method.parent, tuple(sorted(method.regime.items())))
        if same in seen:
            raise ParamsError(f"methods: {name!r} is {seen[same]!r} under another name; take one of them out")
        seen[same] = name
    return methods


def _method(name: str, settings: MethodSettings) -> Method:
    """An entry, without its parent's modalities."""
    recipe = settings.recipe or name
    if recipe not in METHODS:
        raise unknown("method", recipe, METHODS, key=f"methods.{name}.recipe" if settings.recipe else "methods")
    info = METHODS[recipe]
    given = settings.model_dump(exclude_none=True, exclude={"recipe", "parent"})
    regime = {setting: value for setting, value in given.items() if value != own_value(recipe, setting)}
    for setting, value in given.items():
        if setting not in info.takes:
            fit = [other for other, one in METHODS.items() if setting in one.takes]
            raise ParamsError(
                f"methods.{name}.{setting}: {value!r} means nothing to {recipe}; take it out, or set recipe to one of "
                f"{', '.join(fit)}"
            )
    if settings.heads == "own_pooler" and not info.multi_exit:
        raise ParamsError(f"methods.{name}.heads: 'own_pooler' means nothing to a model with one exit; take it out")
    if settings.heads == "linear" and info.parent:
        raise ParamsError(
            f"methods.{name}.heads: 'linear', but {recipe} takes over its parent's last exit; set heads of the parent"
        )
    if settings.parent is not None and info.parent is None:
        raise ParamsError(f"methods.{name}.parent: {settings.parent!r}; {recipe} starts from no other, take it out")
    if name in METHODS and (regime or recipe != name):
        raise ParamsError(
            f"methods.{name}: the report compares {name} with papers, and this entry is not {name} as it is; give it "
            f"another name, with recipe: {recipe}"
        )
    modalities: tuple[Modality, ...] = ("text",) if "heads" in regime else info.modalities
    return Method(name, info, settings.parent or info.parent, regime, modalities)


def own_value(method: str, setting: str) -> str:
    """The value of a setting that a method has of its own.

    >>> own_value("joint", "weights"), own_value("alternating", "weights")
    ('ascending', 'uniform')
    """
    if (method, setting) == ("alternating", "weights"):
        return "uniform"
    return {"weights": "ascending", "gradients": "plain", "heads": "shared_pooler"}[setting]


def _served(method: Method, methods: Mapping[str, Method]) -> Method:
    """A method with a parent, for the modalities that its parent serves too."""
    parent = methods.get(method.parent or "")
    if parent is None:
        raise ParamsError(f"methods: {method.name!r} starts from {method.parent!r}; add {method.parent!r} to the list")
    default = METHODS[method.info.parent or ""]
    modalities = tuple(kind for kind in method.modalities if kind in parent.modalities)
    several = default.multi_exit and parent.info.multi_exit and not parent.info.channels
    if not modalities or not (several or parent.info.name == default.name):
        raise ParamsError(
            f"methods.{method.name}.parent: {parent.name!r} is no start for {method.info.name}; name one that trains "
            f"{'early exits alone' if default.multi_exit else 'as ' + default.name}, such as {default.name}"
        )
    if method.regime.get("heads") == "own_pooler" and parent.regime.get("heads") == "linear":
        raise ParamsError(
            f"methods.{method.name}.heads: 'own_pooler', but its parent {parent.name!r} has no pooler; take heads out"
        )
    return replace(method, modalities=modalities)
