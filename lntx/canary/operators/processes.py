"""Data parallel training in two processes: the reduced gradient against the sum of its parts, and the bits of both.

Each rank takes the gradient of its own batch without the others, then the same with DistributedDataParallel over gloo.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lntx.canary.operators.nets import build, loss_of
from lntx.proof.bounds.call import Call
from lntx.proof.operators.rows import judge_numbers
from lntx.proof.result import Proof

RANKS = 2
"""Number of processes."""

_TIMEOUT_S = 300


class RankError(RuntimeError):
    """A process failed."""


Parts = tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]
"""Of each parameter: the gradient of one rank, the reduced gradient, and the parameter after a step."""


def prove_processes(net: str, mode: str, *, seed: int) -> Proof:
    """Train one step in two processes, and compare what comes together.

    net, mode: keys of NETS and MODES. seed: of sizes, weights and data.

    Raises: RankError: a process failed.
    """
    proof = Proof(seed=seed)
    parts = train_in_processes(net, mode, seed)
    name = "all-reduce"
    for k, reduced in enumerate(parts[0][1]):
        mine = [part[0][k] for part in parts]
        call = Call(name, {str(rank): tensor for rank, tensor in enumerate(mine)}, [reduced])
        call.own_format = True
        call.as_balls = reduced.dtype == torch.float64
        # Each rank divides before the sum, or the sum is divided.
        numbers = [call.read(tensor).reshape(-1) for tensor in mine]
        expected = (numbers[0] + numbers[1]) / float(RANKS)
        halves = [tensor / float(RANKS) for tensor in numbers]
        expected = expected.or_form(halves[0] + halves[1])
        proof.calls += 1
        dtype = str(reduced.dtype).removeprefix("torch.")
        try:
            judged = judge_numbers(call, [("0", np.arange(reduced.numel()), expected)])
        except NotImplementedError as error:
            proof.miss(name, str(error))
        else:
            proof.add("backward", name, dtype, judged)
        for what, place in (("gradient", 1), ("parameter", 2)):
            if any(not _same_bits(parts[0][place][k], part[place][k]) for part in parts[1:]):
                proof.blame("backward", name, dtype, f"{name}: {what} {k} has other bits on another rank")
    return proof


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
    return torch.equal(left.contiguous().view(kind), right.contiguous().view(kind))


def train_in_processes(net: str, mode: str, seed: int) -> list[Parts]:
    """Train one step in two processes; return the gradients and parameters of each rank. seed: see prove_processes.

    Raises: RankError: a process failed.
    """
    spawned = multiprocessing.get_context("spawn")
    outcomes: Any = spawned.Queue()
    with tempfile.TemporaryDirectory(prefix="lntx-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        ranks = [
            spawned.Process(target=_rank, args=(rank, str(meeting), net, mode, seed, outcomes), daemon=True)
            for rank in range(RANKS)
        ]
        for process in ranks:
            process.start()
        try:
            results = dict(outcomes.get(timeout=_TIMEOUT_S) for _ in ranks)
        except queue.Empty:
            raise RankError(f"two processes gave no answer in {_TIMEOUT_S} s") from None
        finally:
            for process in ranks:
                process.join(10)
                process.kill()
    for answer in results.values():
        if isinstance(answer, str):
            raise RankError(f"in one of two processes: {answer}")
    return [_tensors(results[rank]) for rank in range(RANKS)]


def _tensors(answer: list[list[tuple[bytes, str, tuple[int, ...]]]]) -> Parts:
    first, second, third = (
        [torch.frombuffer(bytearray(data), dtype=getattr(torch, kind)).reshape(shape) for data, kind, shape in part]
        for part in answer
    )
    return first, second, third


def _plain(tensor: torch.Tensor) -> tuple[bytes, str, tuple[int, ...]]:
    whole = tensor.detach().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes(), str(whole.dtype).removeprefix("torch."), whole.shape


def _rank(rank: int, meeting: str, net: str, mode: str, seed: int, outcomes: Any) -> None:
    """Run one rank, and send what it found, or the words of its error."""
    try:
        outcomes.put((rank, _step_of_rank(rank, meeting, net, mode, seed)))
    except Exception as error:
        outcomes.put((rank, f"{type(error).__name__}: {error}"))


def _step_of_rank(rank: int, meeting: str, net: str, mode: str, seed: int) -> list[list[tuple[bytes, str, Any]]]:
    from torch.nn.parallel import DistributedDataParallel

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    built = build(net, mode, seed)
    # Other data on each rank, weights alike.
    built = dataclasses.replace(built, inputs=built.inputs.roll(rank, 0), targets=built.targets.roll(2 * rank))
    torch.manual_seed(seed % 2**63 + rank)
    state = torch.get_rng_state()
    parameters = list(built.module.parameters())
    loss, _ = loss_of(built)
    alone = [tensor.detach().clone() for tensor in torch.autograd.grad(loss, parameters)]
    torch.set_rng_state(state)
    whole = DistributedDataParallel(built.module)
    loss, _ = loss_of(dataclasses.replace(built, module=whole))
    loss.backward()
    reduced = [tensor.grad.detach().clone() for tensor in parameters if tensor.grad is not None]
    built.optimizer.step()
    torch.distributed.destroy_process_group()
    return [[_plain(tensor) for tensor in part] for part in (alone, reduced, parameters)]
