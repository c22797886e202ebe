"""Code of `torch.compile`: each compiled region is checked as one operator, against the graph that it stands for.

Inside `prove` compiled code runs uncompiled, so this is a backend of its own around Inductor. The graph of a region is
computed on numbers with bounds (`graph`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.fx

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import FORMATS
from lntx.proof.operators.graph import evaluate
from lntx.proof.operators.rows import Phase, judge_numbers
from lntx.proof.result import Proof


def checking_backend(proof: Proof) -> Any:
    """Return a backend for `torch.compile(model, backend=...)` that checks each region as it runs.

    proof: takes in the results, as operator "compiled region".
    """
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    return aot_autograd(
        fw_compiler=_compiler(proof, "forward"),
        bw_compiler=_compiler(proof, "backward"),
        decompositions=select_decomp_table(),
    )


def _compiler(proof: Proof, phase: Phase) -> Callable[..., Any]:
    from torch._inductor.compile_fx import compile_fx_inner

    def compiler(module: torch.fx.GraphModule, inputs: Any) -> Any:
        # The compiler changes the graph that it is given.
        module_before = copy.deepcopy(module)
        run = compile_fx_inner(module, inputs)

        def checked(arguments: list[Any]) -> Any:
            # It also writes over inputs that it needs no more.
            source = [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in arguments]
            outputs = run(arguments)
            proof.calls += 1
            _check(proof, phase, module_before.graph, source, outputs)
            return outputs

        checked._boxed_call = True  # type: ignore[attr-defined]
        return checked

    return compiler


def _check(proof: Proof, phase: Phase, graph: torch.fx.Graph, inputs: list[Any], outputs: Any) -> None:
    name = "compiled region"
    try:
        with np.errstate(all="ignore"), torch.no_grad():
            expected = evaluate(graph, inputs)
    except NotImplementedError as error:
        proof.miss(name, f"{error} is not covered")
        return
    for want, got in zip(expected, outputs, strict=True):
        if isinstance(got, torch.Tensor) and got.dtype in FORMATS and want is not None:
            call = Call(name, {}, [got])
            try:
                judged = judge_numbers(call, [("0", np.arange(got.numel()), want)])
            except NotImplementedError as error:
                proof.miss(name, str(error))
            else:
                proof.add(phase, name, str(got.dtype).removeprefix("torch."), judged)
