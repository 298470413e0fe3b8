"""This process among all: the rank and replica it is, and over what it talks to the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import permutations, product

import torch
from torch import distributed as dist

from runtime.devices import own_device
from runtime.errors import PipelineError
from synth.errors import InputError

Group = dist.ProcessGroup


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Processes laid out as replicas of one pipeline: process number ``replica * num_ranks + rank``.

    Parameters
    ----------
    rank, num_ranks
        The pipeline rank and how many there are.
    replica, num_replicas
        Which copy of the pipeline.
    device
        Where this rank computes.
    store
        Where the processes meet.
    pipeline
        The group of this replica's ranks, on the CPU.
    replicas
        The group of this rank's copies, on the device; None without any.
    directions
        For (sender, receiver), the group that carries their messages. gloo needs none: it carries all over
        ``pipeline``. On NCCL each direction has its own, so that no message waits behind one of another.
    is_staged
        Whether messages pass through host memory, as they do between ranks that share a GPU.
    """

    rank: int
    num_ranks: int
    replica: int
    num_replicas: int
    device: torch.device
    store: dist.Store
    pipeline: Group
    replicas: Group | None
    directions: dict[tuple[int, int], Group]
    is_staged: bool = False

    @property
    def number(self) -> int:
        """This process's number among all."""
        return self.process_of(self.rank)

    def process_of(self, rank: int) -> int:
        """The number among all processes of a rank of this replica."""
        return self.replica * self.num_ranks + rank


def join(
    num_ranks: int,
    *,
    device: torch.device | None = None,
    is_staged: bool = False,
    timeout_s: float = 60.0,
) -> World:
    """Meet the other processes as ``torchrun`` set them up; every process calls this once.

    Parameters
    ----------
    num_ranks
        Ranks of the pipeline; with more processes, a multiple of it, there are replicas.
    device
        Where to compute: by default this process's GPU where there are as many as local processes, else
        the CPU.
    is_staged
        Whether messages pass through host memory: with a device of :func:`runtime.devices.shared_device`.
    timeout_s
        For how long any operation of the groups may take.

    Raises
    ------
    InputError
        When this process was started without them, and as :func:`join_at`.
    PipelineError
        When not all of them come in time.
    """
    missing = [
        name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise InputError(
            f"nothing says which of all processes this is ({', '.join(missing)} not set): start it with "
            f"torchrun --nproc-per-node {num_ranks}"
        )
    timeout = timedelta(seconds=timeout_s)
    with _meeting("all processes", timeout_s):
        store, process, size = next(iter(dist.rendezvous("env://", timeout=timeout)))
    return join_at(store, process, size, num_ranks, device=device, is_staged=is_staged, timeout_s=timeout_s)


def join_at(
    store: dist.Store,
    process: int,
    num_processes: int,
    num_ranks: int,
    *,
    device: torch.device | None = None,
    is_staged: bool = False,
    timeout_s: float = 60.0,
) -> World:
    """Meet the other processes at a store; otherwise as :func:`join`.

    Raises
    ------
    InputError
        When ``num_processes`` is no multiple of ``num_ranks``, or more than that share GPUs, and when the
        processes give different ``num_ranks``.
    PipelineError
        When not all of them come in time.
    """
    who = f"all of the {num_processes} processes"
    store.set_timeout(timedelta(seconds=timeout_s))
    with _meeting(who, timeout_s):
        _check_same_ranks(store, process, num_processes, num_ranks, timeout_s)
    _check_counts(num_processes, num_ranks, is_staged)
    device = own_device(process) if device is None else device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _meeting(who, timeout_s):
        dist.init_process_group(
            "nccl" if device.type == "cuda" and not is_staged else "gloo",
            store=dist.PrefixStore("group", store),
            rank=process,
            world_size=num_processes,
            timeout=timedelta(seconds=timeout_s),
        )
        world = _groups(store, process, num_processes // num_ranks, num_ranks, device, timeout_s)
        # One that gave up before all have made their groups would break the others' connections.
        _wait_for_all(dist.PrefixStore("met", store), process, num_processes, timeout_s)
        return replace(world, is_staged=is_staged)


@contextmanager
def _meeting(who: str, timeout_s: float) -> Iterator[None]:
    """Say of errors inside that not all have come."""
    try:
        yield
    except RuntimeError as error:  # torch has no one type for this
        raise PipelineError(
            f"not {who} met within {timeout_s:g} s: start them all, and see whether one has failed before"
        ) from error


def _check_counts(num_processes: int, num_ranks: int, is_staged: bool) -> None:
    """Behind a check that all processes have the same, so that all of them refuse."""
    if num_processes % num_ranks:
        raise InputError(
            f"{num_processes} processes are started for a schedule of {num_ranks} ranks: start {num_ranks}, "
            "or a multiple of it for replicas"
        )
    if is_staged and num_processes > num_ranks:
        raise InputError(
            f"{num_processes} processes are to share GPUs in a schedule of {num_ranks} ranks, and replicas "
            f"need GPUs of their own: start {num_ranks}"
        )


def _check_same_ranks(
    store: dist.Store, process: int, num_processes: int, num_ranks: int, timeout_s: float
) -> None:
    """Refuse schedules for different numbers of ranks, of which each process would make other groups."""
    notes = dist.PrefixStore("ranks", store)
    keys = _wait_for_all(notes, process, num_processes, timeout_s, str(num_ranks))
    found = sorted({int(notes.get(key)) for key in keys})
    if len(found) > 1:
        raise InputError(
            f"the processes are given schedules of {' and '.join(map(str, found))} ranks: give all the same"
        )


def _wait_for_all(
    notes: dist.Store, process: int, num_processes: int, timeout_s: float, note: str = ""
) -> list[str]:
    """Leave a note and wait until all have left theirs; their keys."""
    keys = [str(number) for number in range(num_processes)]
    notes.set(keys[process], note)
    notes.wait(keys, timedelta(seconds=timeout_s))
    return keys


def _groups(
    store: dist.Store, process: int, num_replicas: int, num_ranks: int, device: torch.device, timeout_s: float
) -> World:
    """Make all groups; every process makes every group, in the same order."""
    replica, rank = divmod(process, num_ranks)
    timeout = timedelta(seconds=timeout_s)

    def group(members: list[int], backend: str | None) -> Group:
        made: Group = dist.new_group(members, backend=backend, timeout=timeout)
        return made

    pipelines = [group([r * num_ranks + s for s in range(num_ranks)], "gloo") for r in range(num_replicas)]
    copies = [
        group([r * num_ranks + s for r in range(num_replicas)], None)
        for s in range(num_ranks if num_replicas > 1 else 0)
    ]
    directions: dict[tuple[int, int], Group] = {}
    pairs = permutations(range(num_ranks), 2) if dist.get_backend() == "nccl" else ()
    for (a, b), r in product(pairs, range(num_replicas)):
        made = group([r * num_ranks + a, r * num_ranks + b], "nccl")
        if r == replica and rank in (a, b):
            directions[a, b] = made
            _send_a_first_message(made, r * num_ranks + a, r * num_ranks + b, process, device)
    return World(
        rank=rank,
        num_ranks=num_ranks,
        replica=replica,
        num_replicas=num_replicas,
        device=device,
        store=store,
        pipeline=pipelines[replica],
        replicas=copies[rank] if copies else None,
        directions=directions,
    )


def _send_a_first_message(
    group: Group, sender: int, receiver: int, process: int, device: torch.device
) -> None:
    """Connect a direction: NCCL does so at its first message, and keeps both sides until it has.

    Within a step one side may be far behind; here all directions come up in one order.
    """
    message = torch.zeros(1, device=device)
    if process == sender:
        dist.send(message, receiver, group=group)
    else:
        dist.recv(message, sender, group=group)
    torch.cuda.synchronize(device)
