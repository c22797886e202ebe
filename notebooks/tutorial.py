# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From one weight to your own table
#
# [中文](tutorial.zh-CN.ipynb)
#
# A PyTorch tutorial trains the smallest possible network: 1000 integers from 1 to 10, `y = 3.7 · x`, one linear layer,
# ten epochs. It prints `3.6999993324279785` and calls that very close to 3.7. Its point is that the whole life of a
# model is already there: data, loss, gradient, update, use. This notebook tells the same story with lntx, and asks one
# question more: **is the result right, and how do we know?**
#
# Every number in the text is printed by a cell. Seeds are fixed, so you get the same numbers.

# %%
import math
import os
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn, optim

import lntx

folder = tempfile.TemporaryDirectory()
# All files of lntx go into this folder; the last cell removes it.
os.environ["LNTX_ROOT"] = folder.name
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "figure.facecolor": "white", "savefig.facecolor": "white", "axes.grid": True})
plt.rcParams.update({"grid.alpha": 0.25, "axes.axisbelow": True})

# %% [markdown]
# ## 1. The tutorial's own code
#
# This is its network and its loop. `nn.Linear` has a bias unless it is told otherwise, so two numbers are learned,
# although the formula has only one.


# %%
class LNTXLinearModel(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.linear = nn.Linear(in_features=1, out_features=1, dtype=dtype)

    def forward(self, x):
        return self.linear(x)


def make_rows(seed):
    torch.manual_seed(seed)
    x = torch.randint(1, 11, (1000, 1)).float()
    return x, 3.7 * x


def train(x, y, *, lr, epochs):
    """Return weight and bias at the start and after each epoch, shape (epochs + 1, 2)."""
    model = LNTXLinearModel(x.dtype)
    loss_function = nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=lr)
    path = [(model.linear.weight.item(), model.linear.bias.item())]
    for _ in range(epochs):
        loss = loss_function(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append((model.linear.weight.item(), model.linear.bias.item()))
    return np.array(path)


x, y = make_rows(seed=0)
path = train(x, y, lr=0.001, epochs=10)
print(f"start:           weight {path[0, 0]:.4f}, bias {path[0, 1]:.4f}")
print(f"after 10 epochs: weight {path[-1, 0]:.4f}, bias {path[-1, 1]:.4f}")

# %% [markdown]
# The weight ends near 2, not near 3.7. Nothing is broken: ten epochs at this rate cannot do more. The mean squared
# error is a quadratic function of the parameters $\theta = (w, b)$, so its gradient is linear, and gradient descent has
# a closed form:
#
# $$\nabla L(\theta) = H(\theta - \theta^*), \qquad
# H = \frac{2}{N} X^\top X = 2\begin{pmatrix} E[x^2] & E[x] \\ E[x] & 1 \end{pmatrix}, \qquad
# \theta_k - \theta^* = (I - \eta H)^k\,(\theta_0 - \theta^*)$$
#
# Here $\theta^* = (3.7, 0)$ is the solution and $\eta$ the learning rate. Along an eigenvector of $H$ with eigenvalue
# $\lambda$, each epoch multiplies the error by $1 - \eta\lambda$. (Without a bias there is one direction,
# $\lambda = 2E[x^2] \approx 77$.)

# %%
design = np.column_stack([x.double().numpy(), np.ones(1000)])  # columns: x, 1
hessian = 2 * design.T @ design / 1000
eigenvalues, directions = np.linalg.eigh(hessian)
# eigh leaves the sign of an eigenvector open: let the weight's part be positive.
directions = directions * np.sign(directions[0])
factors = 1 - 0.001 * eigenvalues
pd.DataFrame(
    {
        "direction (w, b)": [f"({w:.3f}, {b:.3f})" for w, b in directions.T],
        "eigenvalue": eigenvalues.round(3),
        "factor per epoch": factors.round(5),
        "factor after 10 epochs": (factors**10).round(4),
        "epochs for a factor of 1e-7": np.ceil(math.log(1e-7) / np.log(factors)).astype(int),
    },
    index=["flat", "steep"],
)

# %% [markdown]
# Ten epochs leave almost half of the error in the steep direction, and nearly all of it in the flat one. Now the
# expected path beside the measured one:

# %%
solution = np.array([3.7, 0.0])


def expected(start, *, lr, epoch):
    """Return the parameters after some epochs of exact gradient descent."""
    return solution + directions @ ((1 - lr * eigenvalues) ** epoch * (directions.T @ (start - solution)))


expected_path = np.array([expected(path[0], lr=0.001, epoch=k) for k in range(11)])
print("measured and expected agree within 1e-5:", bool(np.abs(path - expected_path).max() < 1e-5))

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(expected_path[:, 0], color="tab:orange", label="expected, closed form")
left.plot(path[:, 0], "o", markersize=4, color="tab:blue", label="measured, torch")
left.axhline(3.7, color="black", linewidth=0.8, linestyle="--", label="3.7")
left.set(xlabel="epoch", ylabel="weight $w$", title="10 epochs, learning rate 0.001")
left.set_ylim(-0.5, 4)
left.legend(loc="lower right", fontsize=8)
epochs = np.unique(np.geomspace(1, 60_000, 600).astype(int))
errors = [abs(expected(path[0], lr=0.001, epoch=k)[0] - 3.7) for k in epochs]
right.plot(epochs, errors, color="tab:orange")
right.axvline(10, color="tab:blue", linewidth=0.8, label="epoch 10")
right.set(xscale="log", yscale="log", xlabel="epoch", ylabel="$|w - 3.7|$", title="60,000 epochs, closed form")
right.legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# At the right, the steep direction is finished after about a hundred epochs (the dip is a change of sign), and then the
# flat one decides. The start is random, so each person sees another end. The closed form gives the ends of 1000 starts
# at once (`nn.Linear(1, 1)` draws weight and bias between −1 and 1):

# %%
starts = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
ends = np.array([expected(start, lr=0.001, epoch=10)[0] for start in starts])
print(f"weight after 10 epochs: {ends.min():.2f} to {ends.max():.2f}, median {np.median(ends):.2f}")

# %% [markdown]
# ## 2. Where 3.6999993324279785 comes from
#
# float32 cannot represent 3.7. Its nearest neighbours are one *unit in the last place* (ulp) apart:

# %%
ulp = float(np.spacing(np.float32(3.7)))
print(f"one ulp of float32 at 3.7 is {ulp}")
value = torch.tensor(3.7)
for steps in range(5):
    print(f"float32(3.7) - {steps} ulp = {value.item()}")
    value = torch.nextafter(value, torch.tensor(-math.inf))

# %% [markdown]
# The tutorial's number is float32(3.7) − 3 ulp. It does not appear after ten epochs at 0.001. But it does at the rate
# 0.01, which the tutorial's text recommends, if the loop runs long enough: ten seeds, 6000 epochs each.

# %%
float32_target = float(np.float32(3.7))
ended = {}
for seed in range(10):
    long_path = train(*make_rows(seed), lr=0.01, epochs=6000)
    ended[seed] = {
        "after 10 epochs": round(long_path[10, 0], 3),
        "after 6000 epochs": repr(long_path[-1, 0].item()),
        "ulp from float32(3.7)": round((long_path[-1, 0] - float32_target) / ulp),
        "same weight for the last 500 epochs": bool((long_path[-500:, 0] == long_path[-1, 0]).all()),
    }
pd.DataFrame.from_dict(ended, orient="index").rename_axis("seed")

# %% [markdown]
# The weight stops one to three units away from the right float32 number, and more epochs change nothing. The reason is
# the rounding of the update. `w - lr * gradient` is rounded to float32, and if the step is smaller than **half an
# ulp**, the result is `w` again.
#
# How large is the step near the solution? The bias is small, so its own ulp is much smaller, and it goes on moving
# until it suits the weight. What remains for the weight is a gradient of $2\,\mathrm{Var}(x)\,(w - 3.7)$. So the step
# is below half an ulp if the weight is less than $0.5 / (2\,\eta\,\mathrm{Var}(x))$ ulp away. The last moves of seed 3:

# %%
x, y = make_rows(seed=3)
variance = x.double().var(correction=0).item()
long_path = train(x, y, lr=0.01, epochs=6000)


def step_in_ulp(w, b):
    """Return the step of the weight at a point of the path, in ulp of float32 at 3.7."""
    weight = torch.tensor([[w]], dtype=torch.float32, requires_grad=True)
    prediction = nn.functional.linear(x, weight, torch.tensor([b], dtype=torch.float32))
    nn.functional.mse_loss(prediction, y).backward()
    return -0.01 * weight.grad.item() / ulp


print(f"0.5 / (2 lr Var(x)) = {0.5 / (2 * 0.01 * variance):.2f} ulp")
print(f"from float32(3.7) - 3 ulp to 3.7: {(3.7 - float32_target) / ulp + 3:.2f} ulp")
print(f"from float32(3.7) - 4 ulp to 3.7: {(3.7 - float32_target) / ulp + 4:.2f} ulp")
stays = []
for below in range(6, 2, -1):
    here = np.flatnonzero(long_path[:, 0] == float32_target - below * ulp)
    stays.append(
        {
            "weight": f"float32(3.7) - {below} ulp",
            "first epoch": here[0],
            "last epoch": here[-1],
            "last step in ulp": round(step_in_ulp(*long_path[here[-1]]), 2),
        }
    )
pd.DataFrame(stays).set_index("weight")

# %% [markdown]
# At 6, 5 and 4 ulp below, the bias adapts, the step grows, and when it exceeds half an ulp the weight moves by one. At
# 3 ulp the step stays below a half, and the weight stays there. So `3.6999993324279785` says nothing about the data. It
# is a property of float32 at this learning rate.
#
# float64 has the same kind of stall point, at a distance that is 2²⁹ times smaller. lntx goes on to the last digit:
# near the solution it computes the rounding error of the predictions, and takes it out of the residuals
# ([numerics](../docs/numerics.md)).

# %%
x64 = x.double()
torch.manual_seed(3)
float64_path = train(x64, 3.7 * x64, lr=0.01, epochs=10_000)
print(f"float64: within 1e-14 of 3.7: {bool(abs(float64_path[-1, 0] - 3.7) < 1e-14)}")
print(f"float64: equal to 3.7:        {bool(float64_path[-1, 0] == 3.7)}")

table = pd.DataFrame({"x": x64.numpy().ravel(), "y": 3.7 * x64.numpy().ravel()})
same_rows = lntx.fit(table, target="y")
print(f"lntx:    equal to 3.7:        {same_rows.learned_weights == (3.7,)}, after {same_rows.epochs} epochs")

# %% [markdown]
# ## 3. What standardising does to the loss
#
# The flat direction is the reason why almost 40,000 epochs are needed. The *condition number* of the Hessian, the
# largest eigenvalue divided by the smallest, says how long the valley of the loss is. The best learning rate,
# $2/(\lambda_{max} + \lambda_{min})$, shrinks the error by $(\kappa - 1)/(\kappa + 1)$ per epoch, so a condition number
# $\kappa$ of 1 is solved in one step.
#
# Standardising is another choice of coordinates: $x$ is shifted to mean 0 and scaled to standard deviation 1. The loss
# as a function of the new weight and bias is then a round bowl.

# %%
hessian = 2 * np.array([[(x64**2).mean().item(), x64.mean().item()], [x64.mean().item(), 1.0]])
mean, deviation = x64.mean().item(), math.sqrt(variance)
# Parameters in the units of x = scaling @ parameters in standardised units.
scaling = np.array([[1 / deviation, 0.0], [-mean / deviation, 1.0]])
standardised = scaling.T @ hessian @ scaling


def condition_number(matrix):
    smallest, *_, largest = np.linalg.eigvalsh(matrix)
    return largest / smallest


def descend(matrix, start, end, *, lr, epochs):
    """Return the path of gradient descent on a quadratic function, shape (epochs + 1, 2)."""
    path = [start]
    for _ in range(epochs):
        path.append(path[-1] - lr * matrix @ (path[-1] - end))
    return np.array(path)


def contours(axes, matrix, centre, width, height, title):
    w, b = np.meshgrid(
        centre[0] + np.linspace(-width, width, 200), centre[1] + np.linspace(-height, height, 200), indexing="ij"
    )
    error = np.stack([w - centre[0], b - centre[1]], axis=-1)
    loss = 0.5 * np.einsum("...i,ij,...j->...", error, matrix, error)
    levels = np.geomspace(loss.max() / 3000, loss.max(), 12)
    axes.contour(w, b, loss, levels=levels, colors="grey", linewidths=0.7)
    axes.plot(*centre, "*", color="black", markersize=9, zorder=3)
    axes.set_title(title)
    axes.grid(False)


plain = descend(hessian, np.array([-1.0, -4.0]), solution, lr=0.01, epochs=300)
inverse = np.linalg.inv(scaling)
round_path = descend(standardised, inverse @ plain[0], inverse @ solution, lr=0.5, epochs=1)
back = round_path @ scaling.T

figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
contours(left, hessian, solution, 6.0, 7.0, rf"before: $\kappa$ = {condition_number(hessian):.0f}")
left.plot(*plain.T, "o-", markersize=2.5, linewidth=0.8, color="tab:blue", label="lr 0.01, 300 epochs")
left.plot(*back.T, "s--", markersize=4, linewidth=1, color="tab:orange", label="the step at the right")
left.set(xlabel="weight $w$", ylabel="bias $b$")
left.legend(loc="lower left", fontsize=8)
centre = inverse @ solution
contours(right, standardised, centre, 33, 33, rf"standardised: $\kappa$ = {condition_number(standardised):.0f}")
right.plot(*round_path.T, "s--", markersize=4, linewidth=1, color="tab:orange", label="lr 0.5, 1 epoch")
right.set(xlabel=r"weight $w'$, of $(x - \bar x)/s_x$", ylabel="bias $b'$", aspect="equal")
right.legend(loc="lower right", fontsize=8)
plt.show()

# %% [markdown]
# Grey lines have equal loss, and the star is the solution. At the left, the path falls into the valley within a few
# epochs and then creeps along it: after 300 epochs it has not arrived. At the right, one step arrives. The orange line
# at the left is the same step, in the units of the data.
#
# lntx keeps the model in your units and multiplies each gradient by $S S^\top$ (here `scaling @ scaling.T`): that is
# the same descent. It measures the condition number and chooses the coordinates itself. On these rows:

# %%
same = math.isclose(same_rows.condition_number, condition_number(hessian), rel_tol=1e-6)
print(f"condition number {same_rows.condition_number:.1f}, equal to ours: {same}")
print(f"coordinates: {same_rows.precondition}, learning rate {same_rows.learning_rate:.4f}, epochs {same_rows.epochs}")

# %% [markdown]
# ## 4. One weight with lntx
#
# `lntx.run()` generates rows from a known weight (3.7 by default), trains, compares the result with the exact
# least-squares solution and with the truth, and exports the model. A fresh process reads the files back and computes
# predictions with them before the run passes.

# %%
run = lntx.run()
print(f"verdict         {run.verdict}")
print(f"learned weight  {run.learned_weights[0]}")
print(f"exact weight    {run.reference_weights[0]}")
print(f"true weight     {run.true_weights[0]}")
print(f"right digits    {run.digits} (15.95 is all of float64)")
print(f"epochs          {run.epochs}, at learning rate {run.learning_rate:.6f}")
for name, stage in run.stages.items():
    print(f"{name:15} {stage.state}")

# %% [markdown]
# With one weight and no bias there is one direction, with $\lambda = 2E[x^2]$, and the condition number is 1. At the
# rate $1/\lambda$, which lntx measures on the rows, one step arrives. The remaining epochs remove rounding errors.

# %%
run.history[["x"]]

# %% [markdown]
# No number is rounded or snapped to 3.7: the exported file has the weight that was learned. Anyone can read it without
# lntx.

# %%
print(load_file(Path(folder.name) / run.exports["safetensors"]))
print("predict 3:", lntx.predict(3))
print("predict four rows:", lntx.predict([[1], [2], [3], [10]]))

# %% [markdown]
# The preset `tutorial` is the code of section 1, as a run: float32, with a bias, ten epochs at 0.001. lntx does not
# export it. It says what is wrong and why:

# %%
as_printed = lntx.run(preset="tutorial")
print(as_printed.verdict, "-", as_printed.reason)
print({name: stage.state for name, stage in as_printed.stages.items()})

# %% [markdown]
# (`--train.precondition auto` is how the command line says it. In Python it is `train={"precondition": "auto"}`.)
#
# Which rates would have reached the weight? A sweep tries them side by side, and refuses the one that cannot converge:

# %%
rates = lntx.run_sweep({"train.learning_rate": [0.001, 0.003, 0.01, 0.02, 0.03]})
for trial in sorted(rates.trials, key=lambda trial: trial.settings["train.learning_rate"]):
    print(trial.settings["train.learning_rate"], trial.error or f"{trial.verdict}, {trial.epochs} epochs")

# %% [markdown]
# ## 5. Three weights and a bias
#
# The tutorial promises that more weights, `y = W1·x1 + W2·x2 + W3·x3`, need only the same process. But gradient descent
# converges only below the *stable limit* $2/\lambda_{max}$, and each feature increases $\lambda_{max}$. For integers
# from 1 to 10, $E[x^2] = 38.5$ and $E[x]^2 = 30.25$:

# %%
second_moment, squared_mean = 38.5, 30.25
for count in range(1, 5):
    largest = 2 * (second_moment + (count - 1) * squared_mean)
    print(f"{count} features: stable limit {2 / largest:.4f}")

# %% [markdown]
# With three features, the recommended 0.01 is at the edge, and the drawn rows decide on which side. Thirty data sets,
# trained with plain torch at 0.01 for 500 epochs:

# %%
limits, first_losses, last_losses = [], [], []
for seed in range(30):
    torch.manual_seed(seed)
    x3 = torch.randint(1, 11, (1000, 3)).double()
    y3 = x3 @ torch.tensor([[3.7], [-1.2], [0.5]], dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(500):
        loss = nn.functional.mse_loss(model(x3), y3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    limits.append(2 / np.linalg.eigvalsh(2 * (x3.T @ x3).numpy() / 1000)[-1])
    first_losses.append(losses[0])
    last_losses.append(losses[-1])
limits, first_losses, last_losses = np.array(limits), np.array(first_losses), np.array(last_losses)
grew = last_losses > first_losses
print(f"loss grew in {grew.sum()} of 30 data sets; the stable limit is below 0.01 in {(limits < 0.01).sum()}")
print("the same data sets:", bool((grew == (limits < 0.01)).all()))

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(limits[~grew], (last_losses / first_losses)[~grew], "o", color="tab:blue", label="converges")
axes.plot(limits[grew], (last_losses / first_losses)[grew], "s", color="tab:red", label="diverges")
axes.axvline(0.01, color="black", linewidth=0.8, linestyle="--", label="learning rate 0.01")
axes.set(yscale="log", xlabel=r"stable limit $2/\lambda_{max}$ of the rows", ylabel="last loss / first loss")
axes.legend()
plt.show()

# %% [markdown]
# A fixed rate is a bet on the rows. lntx measures the curvature first, and chooses rate and coordinates from it:

# %%
three = lntx.run(data={"weights": [3.7, -1.2, 0.5], "bias": 2})
print(f"{three.verdict}, {three.digits} digits, {three.epochs} epochs")
print(f"condition number {three.condition_number:.0f}; coordinates: {three.precondition}")
print(f"learning rate {three.learning_rate:.4f}, stable limit {three.stable_limit:.4f} in these coordinates")
pd.DataFrame(
    {
        "learned": map(repr, [*three.learned_weights, three.learned_bias]),
        "exact": map(repr, [*three.reference_weights, three.reference_bias]),
        "true": map(repr, [*three.true_weights, three.true_bias]),
    },
    index=[*three.features, "bias"],
)

# %% [markdown]
# Is the learned bias wrong in its last digit? No: `y` is stored in float64, so the rows follow the true weights only up
# to rounding. What training must find is the exact solution *of these rows*, and it has the same last digit.
#
# A rate above the limit is refused before the first step:

# %%
try:
    lntx.run(data={"weights": [3.7, -1.2, 0.5]}, train={"learning_rate": 0.02, "precondition": "none"})
except ValueError as error:
    print(error)

# %% [markdown]
# ## 6. Your own table
#
# Nobody knows the true weights of a real table. We make one up, with units in the names and with noise, so that we can
# compare at the end: the rent of 200 flats.

# %%
generator = np.random.default_rng(0)
flats = pd.DataFrame(
    {
        "area_m2": generator.integers(20, 120, 200),
        "distance_km": generator.uniform(0.5, 20, 200).round(1),
        "age_years": generator.integers(0, 60, 200),
    }
)
made_with = {"area_m2": 9.5, "distance_km": -6.0, "age_years": -1.5, "bias": 250.0}
rent = sum(made_with[name] * flats[name] for name in flats) + made_with["bias"]
flats["rent_eur"] = (rent + generator.normal(0, 40, 200)).round(2)
flats.head()

# %%
rents = lntx.fit(flats, target="rent_eur")
rents

# %% [markdown]
# One more m² costs about 9.5 € more, give or take the standard error; `low` and `high` are the ends of the 95 %
# confidence interval. These are the figures of R's `summary(lm)`. Because we made the table, we can compare:

# %%
compared = rents.coefficients[["estimate", "standard_error", "low", "high"]].round(3)
compared.insert(0, "made with", pd.Series(made_with))
compared["inside"] = compared["made with"].between(compared["low"], compared["high"])
compared

# %% [markdown]
# **What the digits certify.** They compare the *trained* weights with the *exact* least-squares solution of these rows.
# The exact solution has no rounding, so we can check it with fractions of whole numbers:

# %%
columns = [*rents.features, 1]
rows = [[Fraction(1) if name == 1 else Fraction(float(row[name])) for name in columns] for _, row in flats.iterrows()]
targets = [Fraction(value) for value in flats["rent_eur"].tolist()]
size = len(columns)
# The normal equations, with the right-hand side as the last column.
system = [
    [sum(row[i] * row[j] for row in rows) for j in range(size)]
    + [sum(row[i] * target for row, target in zip(rows, targets, strict=True))]
    for i in range(size)
]
for i in range(size):
    system[i] = [value / system[i][i] for value in system[i]]
    for j in range(size):
        if j != i:
            system[j] = [below - system[j][i] * above for below, above in zip(system[j], system[i], strict=True)]
exact = [float(row[-1]) for row in system]

print("lntx's exact solution is ours:", exact == [*rents.reference_weights, rents.reference_bias])
print(f"trained: {rents.digits:.2f} digits in the worst coefficient, at most {rents.ulps:g} ulp off")
errors = [*rents.standard_errors, rents.bias_standard_error]
print(f"standard errors: at least {min(np.array(errors) / np.spacing(np.abs(exact))):.0e} ulp")
learned = [*rents.learned_weights, rents.learned_bias]
pd.DataFrame({"fractions": map(repr, exact), "trained": map(repr, learned)}, index=[*rents.features, "bias"])

# %% [markdown]
# So the digits mean: training ended at the solution, up to the last digit of float64, and no error of the machine or of
# the loop is left in the weights. They do *not* mean that the rent follows these weights to 16 digits. How well the
# rows determine the weights is what the standard errors say, and they are many billions of ulp. Whether a straight
# line is the right model is a question for you and for the residuals (`lntx report` draws them).
#
# Predictions take the columns by name:

# %%
lntx.predict(pd.DataFrame({"distance_km": [3.0, 15.0], "age_years": [10, 40], "area_m2": [60, 60]}))

# %% [markdown]
# ## 7. What the canary sees
#
# A pipeline that knows the answer can test the whole software stack below it. `lntx canary` computes everything again
# in a temporary folder, with nothing cached, and compares each *epoch* with the closed form of section 1, in 60 digits.
# In a terminal, this is `lntx canary --local`; in Python:

# %%
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions

healthy = run_canary(root=folder.name)
print("verdict", healthy.verdict)
print(f"{healthy.cases[0].name}: {healthy.cases[0].path.epochs} epochs compared")

# %% [markdown]
# A check that has never failed proves little. So we inject a fault: during training, one bit of one weight flips.
# (`lntx canary --local --inject flipped-weight-bit`; `--inject list` names all faults.)

# %%
faulty = run_canary(CanaryOptions(inject="flipped-weight-bit"), root=folder.name)
print("verdict", faulty.verdict)
print("blamed ", faulty.blame)
print("reason ", faulty.reason)
print()
run = faulty.run
print("learned after the fault:", [round(weight, 9) for weight in (*run.learned_weights, run.learned_bias)])
print("true:                   ", [*run.true_weights, run.true_bias])
# The files of a wrong answer are kept for a closer look; not here.
shutil.rmtree(faulty.root)

# %% [markdown]
# The end is right all the same: gradient descent corrected the flipped bit in the epochs that followed. A test that
# looks only at the final weights, or only at the loss, would have passed. The path shows the fault in the epoch in
# which it happened.
#
# **What a pass does not prove.**
#
# - A model of a few weights exercises little of a machine. A pass proves the path (data, training, export); it is no
#   burn-in test of the hardware. `lntx canary --deep` checks every operator of five larger networks.
# - Some faults have a size below which rounding hides them:

# %%
print(faulty.fault.name, "is not seen below", faulty.fault.limit)

# %% [markdown]
# - A pass holds for this machine, these versions and this moment. An intermittent fault can come an hour later: run the
#   canary on a schedule ([canary](../docs/canary.md)).
# - A right solution of the wrong model is still a right solution. What your columns mean, lntx cannot know.
#
# The last cell removes what the notebook wrote.

# %%
folder.cleanup()
print("removed:", not Path(folder.name).exists())
