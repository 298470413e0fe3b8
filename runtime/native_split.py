"""A divided backward of any module, by cutting its autograd graph: the native form.

The graph of a forward leads from the output back to the stage's input and to its parameters (of a sequence
slice, from all it hands on to all it takes, :mod:`runtime.slices`). The nodes from which the input can be
reached are the *path*; a node of it at which a parameter's branch joins is a *joint* (a matrix product, say,
which yields the gradients of its input and of its weight). B walks the path alone and notes the gradient that
arrives at every joint; W starts again from each joint towards its own parameters.

A parameter with several joints (used twice in the stage) or none on the path takes its gradient in W from a
whole backward, which is exact and costs the path again; so does all of a first stage, whose input has no
gradient. Under activation checkpointing every joint recomputes: use the layers of :mod:`runtime.deferred`
there. Nothing is freed between B and W, and the noted gradients come on top; W frees as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

_Joints = dict[Node | None, list[nn.Parameter]]
"""The parameters that only join at this node, None for those that need a whole backward."""


def backward_input(
    output: GradientEdge, grad: Tensor, x: Tensor | None, parameters: Iterable[nn.Parameter]
) -> tuple[Tensor | None, Callable[[], None]]:
    """Compute the gradient of a stage's input; the rest of its backward is returned as work for later.

    Parameters
    ----------
    output
        Where the stage's output, or its loss, sits in the autograd graph.
    grad
        The gradient of the output.
    x
        The stage's input, a leaf that requires a gradient; None where it needs none.
    parameters
        Of the stage; gradients are added to their ``.grad``.

    Returns
    -------
    The gradient of ``x`` (None where ``x`` is None), and the weight work, to be called once.
    """
    found, work = backward_inputs([output], [grad], [] if x is None else [x], parameters)
    return found[0] if found else None, work


def backward_inputs(
    outputs: Sequence[GradientEdge],
    grads: Sequence[Tensor],
    inputs: Sequence[Tensor],
    parameters: Iterable[nn.Parameter],
) -> tuple[tuple[Tensor | None, ...], Callable[[], None]]:
    """The same for any number of outputs, with the gradient of each, and of inputs.

    Returns
    -------
    The gradient of every input, and the weight work, to be called once.
    """
    if not inputs:
        return (), partial(torch.autograd.backward, list(outputs), list(grads))
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    leaves = [get_gradient_edge(x).node for x in inputs]
    joints = _find_joints([output.node for output in outputs], leaves, wanted)
    arrived: dict[Node, Sequence[Tensor | None]] = {}

    def note(node: Node) -> Callable[[Sequence[Tensor | None]], None]:
        return lambda grads: arrived.__setitem__(node, tuple(grads))

    hooks = [node.register_prehook(note(node)) for node in joints if node is not None]
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            outputs, inputs, grads, retain_graph=True, allow_unused=True
        )
    finally:
        for hook in hooks:
            hook.remove()

    def weight_work() -> None:
        # A whole backward passes all joints, so it comes first; after it each is passed for the last time.
        for node, own in sorted(joints.items(), key=lambda joint: joint[0] is not None):
            edges, starts = list(outputs), list(grads)
            if node is not None:
                given = [(n, g) for n, g in enumerate(arrived[node]) if g is not None]
                edges, starts = [GradientEdge(node, n) for n, _ in given], [g for _, g in given]
                if not given:  # no gradient arrived here
                    continue
            keep = node is None and len(joints) > 1
            torch.autograd.backward(edges, starts, retain_graph=keep, inputs=own)

    return found, weight_work


def _find_joints(
    roots: Sequence[Node], leaves: Sequence[Node], parameters: Sequence[nn.Parameter]
) -> _Joints:
    """Where each parameter that the graph reaches joins the path."""
    below = _nodes_below(roots)
    path = _nodes_above(leaves, below)
    joined: dict[Node, set[Node | None]] = {}
    for root in roots:
        if root not in path:
            _mark(root, None, path, joined)
    for node in path:
        for child, _ in node.next_functions:
            if child is not None and child not in path:
                _mark(child, node, path, joined)
    joints: _Joints = {}
    for parameter in parameters:
        found = joined.get(get_gradient_edge(parameter).node)
        if found:
            joints.setdefault(found.pop() if len(found) == 1 else None, []).append(parameter)
    return joints


def _nodes_below(roots: Sequence[Node]) -> dict[Node, list[Node]]:
    """Every node that a root reaches, with the nodes that lead to it."""
    parents: dict[Node, list[Node]] = {root: [] for root in roots}
    ahead = list(parents)
    while ahead:
        node = ahead.pop()
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child not in parents:
                parents[child] = []
                ahead.append(child)
            parents[child].append(node)
    return parents


def _nodes_above(leaves: Sequence[Node], parents: dict[Node, list[Node]]) -> set[Node]:
    """Every node from which a leaf can be reached, itself among them; none where no root does."""
    found: set[Node] = set()
    ahead = [leaf for leaf in leaves if leaf in parents]
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += parents[node]
    return found


def _mark(start: Node, joint: Node | None, path: set[Node], joined: dict[Node, set[Node | None]]) -> None:
    """Note, for everything a branch reaches, the joint it hangs on."""
    ahead = [start]
    while ahead:
        node = ahead.pop()
        at = joined.setdefault(node, set())
        if joint not in at:
            at.add(joint)
            ahead += [child for child, _ in node.next_functions if child is not None and child not in path]
