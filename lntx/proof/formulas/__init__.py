"""One formula for each operator of torch, written on numbers that carry a bound; a family of operators a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lntx.proof.call import Call
from lntx.proof.formulas import attention, images, losses, norms, optimizers, recurrent, sums
from lntx.proof.formulas.moves import MOVES, bits
from lntx.proof.formulas.pointwise import POINTWISE, Found, element_by_element

FORMULAS: Mapping[str, Callable[[Call], Found]] = {
    **dict.fromkeys(POINTWISE, element_by_element),
    "sum": sums.sum_of,
    "mean": sums.mean_of,
    "var": sums.variance_of,
    "var_mean": sums.variance_and_mean_of,
    "linalg_vector_norm": sums.norm_of,
    "norm": sums.norm_of,
    "amax": sums.extreme_of,
    "amin": sums.extreme_of,
    "max": sums.extreme_of,
    "min": sums.extreme_of,
    "cumsum": sums.cumulative_sum,
    "arange": sums.range_of,
    "mm": sums.product_of,
    "bmm": sums.product_of,
    "mv": sums.product_of,
    "dot": sums.product_of,
    "addmm": sums.sum_and_product_of,
    "baddbmm": sums.sum_and_product_of,
    "linear": sums.linear_of,
    "embedding_dense_backward": sums.embedding_gradient,
    "index_put": sums.added_at,
    "_unsafe_masked_index_put_accumulate": sums.added_at,
    "index_add": sums.added_at,
    "scatter_add": sums.added_at,
    "native_layer_norm": norms.layer_norm,
    "native_layer_norm_backward": norms.layer_norm_gradient,
    "_fused_rms_norm": norms.rms_norm,
    "native_batch_norm": norms.batch_norm,
    "_native_batch_norm_legit": norms.batch_norm,
    "native_batch_norm_backward": norms.batch_norm_gradient,
    "native_group_norm": norms.group_norm,
    "native_group_norm_backward": norms.group_norm_gradient,
    "_softmax": losses.softmax,
    "_safe_softmax": losses.softmax,
    "_log_softmax": losses.log_softmax,
    "_softmax_backward_data": losses.softmax_gradient,
    "_log_softmax_backward_data": losses.log_softmax_gradient,
    "nll_loss_forward": losses.negative_log_likelihood,
    "nll_loss2d_forward": losses.negative_log_likelihood,
    "nll_loss_backward": losses.negative_log_likelihood_gradient,
    "nll_loss2d_backward": losses.negative_log_likelihood_gradient,
    "mse_loss": losses.distance_loss,
    "huber_loss": losses.distance_loss,
    "smooth_l1_loss": losses.distance_loss,
    "binary_cross_entropy_with_logits": losses.binary_cross_entropy,
    "_scaled_dot_product_flash_attention_for_cpu": attention.attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": attention.attention_gradient,
    "convolution": images.convolution,
    "convolution_backward": images.convolution_gradient,
    "max_pool2d_with_indices": images.max_pool,
    "max_pool2d_with_indices_backward": images.max_pool_gradient,
    "avg_pool2d": images.average_pool,
    "avg_pool2d_backward": images.average_pool_gradient,
    "_adaptive_avg_pool2d": images.adaptive_average_pool,
    "_adaptive_avg_pool2d_backward": images.adaptive_average_pool_gradient,
    "mkldnn_rnn_layer": recurrent.lstm,
    "mkldnn_rnn_layer_backward": recurrent.lstm_gradient,
    "_fused_adam": optimizers.fused_adam,
    "_fused_adamw": optimizers.fused_adam,
    "_fused_sgd": optimizers.fused_sgd,
}
"""The formula of each operator that computes, by its name without namespace, overload and final underscore."""

OWN_FORMAT = frozenset(
    {
        "_adaptive_avg_pool2d_backward",
        "_fused_rms_norm",
        "_log_softmax",
        "_native_batch_norm_legit",
        "_softmax",
        "_unsafe_masked_index_put_accumulate",
        "add",
        "arange",
        "avg_pool2d_backward",
        "binary_cross_entropy_with_logits",
        "convolution_backward",
        "embedding_dense_backward",
        "huber_loss",
        "huber_loss_backward",
        "index_add",
        "index_put",
        "max_pool2d_with_indices_backward",
        "mse_loss",
        "mse_loss_backward",
        "mul",
        "native_batch_norm",
        "native_layer_norm_backward",
        "nll_loss2d_backward",
        "nll_loss2d_forward",
        "nll_loss_forward",
        "pow",
        "rsqrt",
        "rsub",
        "sigmoid_backward",
        "smooth_l1_loss",
        "sub",
    }
)
"""Operators whose kernels for formats of 16 bits add up in that format, where the others do in float32."""

__all__ = ["FORMULAS", "MOVES", "OWN_FORMAT", "bits"]
