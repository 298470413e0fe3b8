"""The user's model: an import path to a function that returns layers and a sample input."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from synth.errors import InputError

Loss = Callable[[Tensor], Tensor]
"""From the last layer's output to a number."""

WANTED = "return (layers, sample) or (layers, sample, loss)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A chain of layers and what the first one takes.

    Parameters
    ----------
    name
        The import path it came from.
    layers
        Modules from one tensor to one tensor, in order.
    names
        Of the layers.
    sample
        One microbatch.
    loss
        Behind the last layer; without one the backward starts from a gradient of the last output.
    """

    name: str
    layers: tuple[nn.Module, ...]
    names: tuple[str, ...]
    sample: Tensor
    loss: Loss | None = None


def load_model(path: str) -> Model:
    """Import a function and call it.

    Parameters
    ----------
    path
        ``package.module:function``; the working directory is searched first. The function takes nothing and
        returns layers (``nn.Sequential``, ``nn.ModuleList``, ``nn.ModuleDict``, a list or a mapping by name),
        a sample input (one microbatch), and, if it likes, a loss of the last layer's output.

    Raises
    ------
    InputError
        When there is no such module or function, when it fails, or when it returns something else.
    """
    made = _call(_find(path), path)
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise InputError(f"{path} returns neither a pair nor a triple: {WANTED}")
    layers, sample, *rest = made
    names, modules = _named_layers(layers, path)
    if not isinstance(sample, Tensor):
        raise InputError(f"the sample that {path} returns is no tensor: {WANTED}, the sample one microbatch")
    loss = rest[0] if rest else None
    if loss is not None and not callable(loss):
        raise InputError(
            f"the loss that {path} returns is no function: {WANTED}, the loss of the last output"
        )
    return Model(name=path, layers=modules, names=names, sample=sample, loss=loss)


def _find(path: str) -> Callable[[], Any]:
    module_name, colon, function_name = path.partition(":")
    if not (module_name and colon and function_name):
        raise InputError(f"{path!r} is no import path: give module:function, such as models.llama:build")
    found: Any = _import(module_name)
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {function_name}: name one of its functions")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{path} is no function: name one that returns layers and a sample")
    function: Callable[[], Any] = found
    return function


def _import(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        # As `python -m` does; for good, because layers may import more when they first run.
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"there is no module {error.name} in the working directory or among what is installed: "
                "give module:function"
            ) from error
        raise InputError(f"{name} cannot be imported: it needs {error.name}; install it") from error
    except Exception as error:
        raise InputError(f"{name} cannot be imported: {first_line(error)}; correct it") from error


def _call(function: Callable[[], Any], path: str) -> Any:
    try:
        return function()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} fails: {first_line(error)}; it is called without arguments") from error


def first_line(error: Exception) -> str:
    """The first line of what an exception says, without its type."""
    return str(error).strip().partition("\n")[0].rstrip(".") or "it does not say why"


def _named_layers(layers: object, path: str) -> tuple[tuple[str, ...], tuple[nn.Module, ...]]:
    if isinstance(layers, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        pairs: list[tuple[str, Any]] = list(layers.named_children())
    elif isinstance(layers, nn.Module):
        raise InputError(
            f"{path} returns one module for its layers: give a list of those a cut may fall between"
        )
    elif isinstance(layers, Mapping):
        pairs = [(str(name), layer) for name, layer in layers.items()]
    elif isinstance(layers, Iterable):
        pairs = [(str(number), layer) for number, layer in enumerate(layers)]
    else:
        raise InputError(f"the layers that {path} returns are no list of modules: {WANTED}")
    if not pairs:
        raise InputError(f"{path} returns no layers: give at least one")
    for name, layer in pairs:
        if not isinstance(layer, nn.Module):
            raise InputError(f"layer {name} of {path} is no module: {WANTED}, the layers modules")
    return tuple(name for name, _ in pairs), tuple(layer for _, layer in pairs)
