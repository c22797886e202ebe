"""Calls of layers, losses and optimisers, and the definitions of what they give."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import definitions as d
import layer_definitions as layers
import torch
from formula_cases import SAVED, Case, G, W, X, Y, normal, positive, run, whole

from lntx.proof.bounds.numbers import Array


def losses() -> Iterator[Case]:
    for name, function, delta in (
        ("mse", d.squared, ""),
        ("huber", d.huber, "delta"),
        ("smooth_l1", d.smooth_l1, "beta"),
    ):
        for reduction in range(3):
            # Both the near and the far branch.
            args = {"self": X, "target": Y, "reduction": reduction, **({delta: 0.8} if delta else {})}
            truth = d.distance(function, delta)
            yield Case(f"{name}_loss", args, truth)
            grad = G if reduction == 0 else normal()
            yield Case(f"{name}_loss_backward", {"grad_output": grad, **args}, d.gradient(truth, "self"))
    yield Case("smooth_l1_loss", {"self": X, "target": Y, "beta": 0.0}, d.distance(d.smooth_l1, "beta"))
    yield Case("mse_loss", {"self": X, "target": W}, d.distance(d.squared))
    for reduction in range(3):
        args = {"self": X * 3, "target": positive(3, 5) / 9, "reduction": reduction}
        yield Case("binary_cross_entropy_with_logits", args, d.cross_entropy)


def classes() -> Iterator[Case]:
    for reduction, weight in ((0, None), (0, positive(4)), (1, None), (1, positive(4)), (2, None), (2, positive(4))):
        for name, shape in (("nll_loss", (5, 4)), ("nll_loss", (4,)), ("nll_loss2d", (2, 4, 3, 2))):
            target = whole(0, 4, *shape[:1], *shape[2:]) if len(shape) > 1 else torch.tensor(2)
            if target.dim():
                target.view(-1)[1] = -100
            args = {
                "self": normal(*shape),
                "target": target,
                "weight": weight,
                "reduction": reduction,
                "ignore_index": -100,
            }
            out, count = run(f"{name}_forward", args)
            truth = d.likelihood if reduction else layers.first_of(d.likelihood)
            yield Case(f"{name}_forward", args, truth)
            args = {"grad_output": normal(*out.shape), **args, "total_weight": count}
            yield Case(f"{name}_backward", args, d.gradient(layers.first_of(d.likelihood), "self"), SAVED)


def softmaxes() -> Iterator[Case]:
    for dim in (0, 1, -1):
        args = {"self": 4 * normal(2, 3, 4), "dim": dim, "half_to_float": False}
        yield Case("_softmax", args, d.slices(d.softmax))
        yield Case("_log_softmax", args, d.slices(lambda x: [d.log(one) for one in d.softmax(x)]))
        # Shares of 16, so that the saved result sums to 1 exactly.
        output = torch.tensor([[1.0, 3.0, 12.0], [5.0, 5.0, 6.0]]).double() / 16
        output = output.t() if dim == 0 else output
        args = {"grad_output": normal(*output.shape), "output": output, "dim": dim, "input_dtype": torch.float64}
        start = d.each(d.log, "output")
        yield Case("_softmax_backward_data", args, d.gradient(d.slices(d.softmax), "self", start=start))
        logs = d.slices(lambda x: [d.log(one) for one in d.softmax(x)])
        args = {**args, "output": output.log()}
        yield Case(
            "_log_softmax_backward_data", args, d.gradient(logs, "self", start=lambda output, **_: output), SAVED
        )
    hidden = normal(3, 4)
    hidden[1] = hidden[2, 0] = -torch.inf
    yield Case("_safe_softmax", {"self": hidden, "dim": 1}, d.slices(d.softmax))


def norms() -> Iterator[Case]:
    mask = (True, True, True)
    for weight, bias in ((normal(3, 2), normal(3, 2)), (None, None)):
        args = {"input": normal(2, 2, 3, 2), "normalized_shape": (3, 2), "weight": weight, "bias": bias, "eps": 1e-5}
        yield Case("native_layer_norm", args, layers.layer_norm)
        yield Case(
            "_fused_rms_norm",
            {
                "input": normal(4, 3),
                "normalized_shape": (3,),
                "weight": normal(3) if weight is not None else None,
                "eps": None if weight is None else 1e-6,
            },
            layers.rms_norm,
        )
        _, mean, rstd = run("native_layer_norm", args)
        args = {
            "grad_out": normal(2, 2, 3, 2),
            **args,
            "mean": mean,
            "rstd": rstd,
            "output_mask": (True, weight is not None, bias is not None),
        }
        args.pop("eps")
        truth = d.gradient(layers.first_of(layers.layer_norm), "input", "weight", "bias", grad="grad_out")
        yield Case("native_layer_norm_backward", args, truth, SAVED)
        sizes = {"N": 2, "C": 6, "HxW": 2, "group": 3}
        given = {"input": normal(2, 6, 2, 1), "weight": None if weight is None else normal(6)}
        args = {**given, "bias": normal(6), **sizes, "eps": 1e-5}
        yield Case("native_group_norm", args, layers.group_norm)
        _, mean, rstd = run("native_group_norm", args)
        args = {"grad_out": normal(2, 6, 2, 1), **given, "mean": mean, "rstd": rstd, **sizes, "output_mask": mask}
        args["output_mask"] = (True, weight is not None, weight is not None)
        truth = d.gradient(layers.first_of(layers.group_norm), "input", "weight", "bias", grad="grad_out")
        shift = None if weight is None else d.zeros([6])
        yield Case("native_group_norm_backward", args, partial(truth, bias=shift), SAVED)


def batch_norms() -> Iterator[Case]:
    for training, weight, shape in (
        (True, normal(3), (3, 3, 2, 1)),
        (False, normal(3), (3, 3, 2)),
        (True, None, (5, 3)),
    ):
        running = {"running_mean": normal(3), "running_var": positive(3)}
        args = {
            "input": normal(*shape),
            "weight": weight,
            "bias": None if weight is None else normal(3),
            "training": training,
            "momentum": 0.25,
            "eps": 1e-5,
        }
        for name in ("native_batch_norm", "_native_batch_norm_legit"):
            yield Case(name, {**args, **running}, layers.batch_norm, SAVED)
        if training:
            yield Case("_native_batch_norm_legit.no_stats", args, layers.batch_norm)
            updated = {name: value for name, value in args.items() if name != "training"} | running
            yield Case("_batch_norm_with_update", updated, partial(layers.batch_norm, training=True), SAVED)
        _, mean, rstd = run("native_batch_norm", {**args, **running})
        args = {
            "grad_out": normal(*shape),
            "input": args["input"],
            "weight": weight,
            **running,
            "save_mean": mean,
            "save_invstd": rstd,
            "train": training,
            "eps": 1e-5,
            "output_mask": (True, weight is not None, True),
        }
        truth = d.gradient(layers.first_of(layers.batch_norm), "input", "weight", "bias", grad="grad_out")
        yield Case("native_batch_norm_backward", args, partial(truth, bias=d.zeros([3])), SAVED)


def attentions() -> Iterator[Case]:
    hidden = normal(2, 1, 3, 4)
    hidden[0, 0, 1, 2] = -torch.inf
    name = "_scaled_dot_product_flash_attention_for_cpu"
    for more in ({"scale": 0.7}, {"attn_mask": hidden}, {"is_causal": True}):
        columns = 3 if more.get("is_causal") else 4
        args = {"query": normal(2, 2, 3, 2), "key": normal(2, 2, columns, 2), "value": normal(2, 2, columns, 2), **more}
        yield Case(name, args, layers.attention, SAVED)
        out, logs = run(name, args)
        args = {
            "grad_out": normal(*out.shape),
            "dropout_p": 0.0,
            "is_causal": False,
            **args,
            "out": out,
            "logsumexp": logs,
        }
        truth = d.gradient(layers.first_of(layers.attention), "query", "key", "value", grad="grad_out")
        yield Case(f"{name}_backward", args, truth, SAVED)


def convolutions() -> Iterator[Case]:
    for given, weight, groups, transposed, stride, padding, dilation, extra in (
        ((2, 4, 5, 4), (6, 2, 3, 2), 2, False, [2, 1], [1, 0], [1, 2], [0, 0]),
        ((2, 4, 2, 3), (4, 3, 3, 2), 2, True, [2, 1], [1, 0], [1, 2], [1, 0]),
        ((2, 3, 7), (4, 3, 3), 1, False, [2], [2], [2], [0]),
        ((1, 2, 3, 2, 3), (2, 1, 2, 1, 2), 2, False, [1, 1, 2], [1, 0, 0], [1, 1, 1], [0, 0, 0]),
        ((1, 2, 3), (2, 1, 2), 1, True, [3], [0], [1], [2]),
    ):
        way = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "transposed": transposed,
            "output_padding": extra,
            "groups": groups,
        }
        channels = weight[1] * groups if transposed else weight[0]
        args = {"input": normal(*given), "weight": normal(*weight), "bias": normal(channels), **way}
        shape = tuple(run("convolution", args).shape)
        forward = partial(layers.convolution, out=shape)
        yield Case("convolution", args, forward)
        yield Case("convolution", {**args, "bias": None}, forward)
        args = {"grad_output": normal(*shape), **args, "bias_sizes": [channels], "output_mask": (True, True, True)}
        args.pop("bias")
        truth = d.gradient(forward, "input", "weight", "bias")
        yield Case("convolution_backward", args, partial(truth, bias=d.zeros([channels])))


def pools() -> Iterator[Case]:
    way = {"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 0]}
    for ceil_mode, shape in ((False, (2, 1, 5, 4)), (True, (2, 6, 5))):
        args = {"self": normal(*shape), **way, "dilation": [1, 2], "ceil_mode": ceil_mode}
        out, indices = run("max_pool2d_with_indices", args)
        forward = partial(layers.max_pool, out=out.shape[-2:])
        yield Case("max_pool2d_with_indices", args, forward)
        args = {"grad_output": normal(*out.shape), **args, "indices": indices}
        yield Case("max_pool2d_with_indices_backward", args, d.gradient(forward, "self"))
        for include, divisor, stride in ((True, None, [2, 1]), (False, None, []), (True, 5, [2, 3])):
            args = {
                "self": normal(*shape),
                **way,
                "stride": stride,
                "ceil_mode": ceil_mode,
                "count_include_pad": include,
                "divisor_override": divisor,
            }
            out = run("avg_pool2d", args)
            forward = partial(layers.average_pool, out=out.shape[-2:])
            yield Case("avg_pool2d", args, forward)
            yield Case("avg_pool2d_backward", {"grad_output": normal(*out.shape), **args}, d.gradient(forward, "self"))
        size = [3, 3]
        forward = partial(layers.adaptive_pool, out=size)
        given = normal(*shape)
        yield Case("_adaptive_avg_pool2d", {"self": given, "output_size": size}, forward)
        args = {"grad_output": normal(*shape[:-2], *size), "self": given}
        yield Case("_adaptive_avg_pool2d_backward", args, d.gradient(forward, "self"))


def pools_in_space() -> Iterator[Case]:
    """Return pools of three axes, and the adaptive ones that take the largest."""

    def window(i: int, axis: int) -> range:
        return range(2 * i - (axis != 1), 2 * i - (axis != 1) + 2 + (axis == 2))

    way = {"kernel_size": [2, 2, 3], "stride": [2, 2, 2], "padding": [1, 0, 1]}
    args: dict[str, Any] = {"self": normal(2, 3, 4, 5), **way}
    out = run("avg_pool3d", args).shape[-3:]

    def mean(self: Array, **_: Any) -> Array:
        return layers.pool_in_space(self, out, window, lambda inside: d.total(inside) / len(inside))

    def largest(self: Array, **_: Any) -> Array:
        return layers.pool_in_space(self, out, window, max)

    yield Case("max_pool3d_with_indices", {**args, "dilation": [1, 1, 1]}, largest)
    args |= {"ceil_mode": False, "count_include_pad": False, "divisor_override": None}
    yield Case("avg_pool3d", args, mean)
    yield Case("avg_pool3d_backward", {"grad_output": normal(2, *out), **args}, d.gradient(mean, "self"))
    for axes in (2, 3):
        given, size = normal(2, *(3, 5, 4)[:axes]), [2, 3, 3][:axes]

        def part(i: int, axis: int, given: Any = given, size: Any = size) -> range:
            n, m = ((1, *given.shape)[-3:][axis], [1, *size][-3:][axis])
            return range(i * n // m, -((-(i + 1) * n) // m))

        def adaptive(self: Array, output_size: Any, part: Any = part) -> Array:
            deep = self if self.ndim == 4 else self[:, None]
            found = layers.pool_in_space(deep, [1, *output_size][-3:], part, max)
            return found if self.ndim == 4 else found[:, 0]

        yield Case(f"adaptive_max_pool{axes}d", {"self": given, "output_size": size}, adaptive)
    deep, size = normal(2, 3, 5, 4), [2, 3, 3]

    def part_in_space(i: int, axis: int) -> range:
        n, m = deep.shape[1:][axis], size[axis]
        return range(i * n // m, -((-(i + 1) * n) // m))

    def averaged(self: Array, **_: Any) -> Array:
        return layers.pool_in_space(self, size, part_in_space, lambda inside: d.total(inside) / len(inside))

    yield Case("_adaptive_avg_pool3d", {"self": deep, "output_size": size}, averaged)
    args = {"grad_output": normal(2, *size), "self": deep}
    yield Case("_adaptive_avg_pool3d_backward", args, d.gradient(averaged, "self"))


def recurrent() -> Iterator[Case]:
    # The kernel has no float64.
    for reverse, biases in ((False, True), (True, True), (True, False)):
        weights = [one.float() for one in (normal(8, 3), normal(8, 2), normal(8), normal(8))]
        start = {"hx_": normal(1, 3, 2).float(), "cx_": normal(1, 3, 2).float()}
        way = {
            "reverse": reverse,
            "batch_sizes": [],
            "mode": 2,
            "hidden_size": 2,
            "num_layers": 1,
            "has_biases": biases,
            "bidirectional": False,
            "batch_first": False,
            "train": True,
        }
        names = dict(zip("wub", range(3), strict=False)) | {"v": 3}
        args = {
            "input": normal(3, 3, 3).float(),
            **{f"weight{k}": one for k, one in enumerate(weights)},
            **start,
            **way,
        }

        def truth(names: Any = names, biases: bool = biases, **a: Any) -> Any:
            return layers.lstm(**a, **{one: a[f"weight{k}"] for one, k in names.items() if biases or k < 2})

        yield Case("mkldnn_rnn_layer", args, truth)
        out, hidden, cell, workspace = run("mkldnn_rnn_layer", args)
        grads = {
            f"grad_{one}": normal(*like.shape).float() for one, like in (("output", out), ("hy", hidden), ("cy", cell))
        }
        args = {
            "input": args["input"],
            **{f"weight{k + 1}": one for k, one in enumerate(weights)},
            "hx_": start["hx_"],
            "cx_tmp": start["cx_"],
            "output": out,
            "hy_": hidden,
            "cy_": cell,
            **grads,
            **way,
            "workspace": workspace,
        }

        def back(biases: bool = biases, **a: Any) -> Any:
            a |= {"cx_": a["cx_tmp"], **dict(zip("wubv", (a[f"weight{k}"] for k in range(1, 5)), strict=True))}
            a["grads"] = [a["grad_output"], a["grad_hy"], a["grad_cy"]]
            if not biases:
                a |= {"b": d.zeros([8]), "v": d.zeros([8])}
            return d.gradient(layers.lstm, "input", "w", "u", "b", "v", "hx_", "cx_", grad="grads")(**a)

        yield Case("mkldnn_rnn_layer_backward", args, back)


def stepped(function: d.Truth, slots: tuple[str, ...], **more: Any) -> d.Truth:
    def truth(**a: Any) -> dict[str, Array]:
        options = {name: a[name] for name in a if name not in (*slots, "state_steps", "grad_scale", "found_inf")}
        steps = {"step": int(float(a["state_steps"][0][()]))} if "state_steps" in a else {}
        arrays = [a[slot][0] if a[slot] else d.zeros(a["self"][0].shape) for slot in slots]
        found = [
            function(*numbers, **steps, **options, **more)
            for numbers in zip(*(one.flat for one in arrays), strict=True)
        ]
        return {name: d.balls([one[name] for one in found]) for name in found[0]}

    return truth


def optimizers() -> Iterator[Case]:
    slots = ("self", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs")
    for name in ("_fused_adam_", "_fused_adamw_"):
        for amsgrad, maximize, decay, step in ((False, False, 0.0, 1.0), (True, True, 0.03, 7.0)):
            args = {
                **{slot: [normal(3, 2)] for slot in slots[:3]},
                "exp_avg_sqs": [positive(3, 2)],
                "max_exp_avg_sqs": [positive(3, 2)] if amsgrad else [],
                "state_steps": [torch.tensor(step)],
                "lr": 0.01,
                "beta1": 0.8,
                "beta2": 0.99,
                "weight_decay": decay,
                "eps": 1e-8,
                "amsgrad": amsgrad,
                "maximize": maximize,
            }
            yield Case(name, args, stepped(layers.adam, slots, decoupled="adamw" in name), SAVED)
    for momentum, nesterov, first, maximize in (
        (0.0, False, False, False),
        (0.9, True, False, True),
        (0.9, False, True, False),
    ):
        args = {
            **{slot: [normal(3, 2)] for slot in ("self", "grads")},
            "momentum_buffer_list": [normal(3, 2)] if momentum else [],
            "weight_decay": 0.03,
            "momentum": momentum,
            "lr": 0.01,
            "dampening": 0.0 if nesterov else 0.3,
            "nesterov": nesterov,
            "maximize": maximize,
            "is_first_step": first,
        }
        yield Case("_fused_sgd_", args, stepped(layers.sgd, ("self", "grads", "momentum_buffer_list")), SAVED)
