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
# # 从一个权重到你自己的表格
#
# [English](tutorial.ipynb)
#
# 一篇 PyTorch 教程训练了一个最小的网络：1000 个 1 到 10 的整数，`y = 3.7 · x`，一个线性层，10 个 epoch。它打印出 `3.6999993324279785`，并说这已经非常接近 3.7。教程的用意是“麻雀虽小，五脏俱全”：数据、损失、梯度、更新、使用，模型的整个生命周期都在里面。本 notebook 用 lntx 重走一遍，并多问一个问题：**结果对不对？怎样才能知道？**
#
# 文中的每个数字都由某个单元格打印出来。随机种子是固定的，你会得到同样的数字。

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
# lntx 的所有文件都写到这个文件夹，最后一个单元格会删除它。
os.environ["LNTX_ROOT"] = folder.name
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "figure.facecolor": "white", "savefig.facecolor": "white", "axes.grid": True})
plt.rcParams.update({"grid.alpha": 0.25, "axes.axisbelow": True})

# %% [markdown]
# ## 1. 教程的原始代码
#
# 下面是教程的网络和训练循环。`nn.Linear` 默认带偏置，所以虽然公式里只有一个权重，实际学习的却是两个数。


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
    """返回初始时和每个 epoch 之后的权重和偏置，形状为 (epochs + 1, 2)。"""
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
print(f"初始：          权重 {path[0, 0]:.4f}，偏置 {path[0, 1]:.4f}")
print(f"10 个 epoch 后：权重 {path[-1, 0]:.4f}，偏置 {path[-1, 1]:.4f}")

# %% [markdown]
# 权重停在 2 附近，而不是 3.7。这并不是程序有错：以这个学习率，10 个 epoch 只能走这么远。均方误差是参数 $\theta = (w, b)$ 的二次函数，梯度是线性的，因此梯度下降有闭式解：
#
# $$\nabla L(\theta) = H(\theta - \theta^*), \qquad
# H = \frac{2}{N} X^\top X = 2\begin{pmatrix} E[x^2] & E[x] \\ E[x] & 1 \end{pmatrix}, \qquad
# \theta_k - \theta^* = (I - \eta H)^k\,(\theta_0 - \theta^*)$$
#
# 其中 $\theta^* = (3.7, 0)$ 是解，$\eta$ 是学习率。沿着 $H$ 的一个特征向量（特征值为 $\lambda$），每个 epoch 都把误差乘以 $1 - \eta\lambda$。（如果没有偏置，就只有一个方向，$\lambda = 2E[x^2] \approx 77$。）

# %%
design = np.column_stack([x.double().numpy(), np.ones(1000)])  # 两列：x 和 1
hessian = 2 * design.T @ design / 1000
eigenvalues, directions = np.linalg.eigh(hessian)
# eigh 不规定特征向量的正负号：取权重分量为正的那一个。
directions = directions * np.sign(directions[0])
factors = 1 - 0.001 * eigenvalues
pd.DataFrame(
    {
        "方向 (w, b)": [f"({w:.3f}, {b:.3f})" for w, b in directions.T],
        "特征值": eigenvalues.round(3),
        "每个 epoch 的因子": factors.round(5),
        "10 个 epoch 的因子": (factors**10).round(4),
        "缩小到 1e-7 所需的 epoch": np.ceil(math.log(1e-7) / np.log(factors)).astype(int),
    },
    index=["平缓", "陡峭"],
)

# %% [markdown]
# 10 个 epoch 之后，陡峭方向上还剩将近一半的误差，平缓方向上的误差几乎原封不动。下面把理论路径与实测路径画在一起：

# %%
solution = np.array([3.7, 0.0])


def expected(start, *, lr, epoch):
    """返回精确的梯度下降在若干个 epoch 之后的参数。"""
    return solution + directions @ ((1 - lr * eigenvalues) ** epoch * (directions.T @ (start - solution)))


expected_path = np.array([expected(path[0], lr=0.001, epoch=k) for k in range(11)])
print("实测与理论之差小于 1e-5：", bool(np.abs(path - expected_path).max() < 1e-5))

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
# 右图中，陡峭方向大约在一百个 epoch 后收敛（曲线上的尖谷是误差变号的地方），此后由平缓方向决定快慢。初始值是随机的，所以每个人看到的终点都不同。用闭式解可以一次算出 1000 个初始值的终点（`nn.Linear(1, 1)` 的权重和偏置都在 −1 到 1 之间均匀抽取）：

# %%
starts = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
ends = np.array([expected(start, lr=0.001, epoch=10)[0] for start in starts])
print(f"10 个 epoch 后的权重：{ends.min():.2f} 到 {ends.max():.2f}，中位数 {np.median(ends):.2f}")

# %% [markdown]
# ## 2. 3.6999993324279785 从哪里来
#
# float32 无法精确表示 3.7。在 3.7 附近，相邻的两个 float32 数相差一个*末位单位*（ulp，unit in the last place）：

# %%
ulp = float(np.spacing(np.float32(3.7)))
print(f"float32 在 3.7 处的一个 ulp 是 {ulp}")
value = torch.tensor(3.7)
for steps in range(5):
    print(f"float32(3.7) - {steps} ulp = {value.item()}")
    value = torch.nextafter(value, torch.tensor(-math.inf))

# %% [markdown]
# 教程打印的数就是 float32(3.7) − 3 ulp。学习率为 0.001 时，10 个 epoch 之后不会出现这个数；但教程的文字部分推荐的学习率是 0.01，用它训练得足够久，这个数就会出现。下面用 10 个种子，各训练 6000 个 epoch：

# %%
float32_target = float(np.float32(3.7))
ended = {}
for seed in range(10):
    long_path = train(*make_rows(seed), lr=0.01, epochs=6000)
    ended[seed] = {
        "10 个 epoch 后": round(long_path[10, 0], 3),
        "6000 个 epoch 后": repr(long_path[-1, 0].item()),
        "与 float32(3.7) 相差的 ulp": round((long_path[-1, 0] - float32_target) / ulp),
        "最后 500 个 epoch 不变": bool((long_path[-500:, 0] == long_path[-1, 0]).all()),
    }
pd.DataFrame.from_dict(ended, orient="index").rename_axis("种子")

# %% [markdown]
# 权重停在离正确的 float32 数 1 到 3 个 ulp 的地方，再多的 epoch 也不会改变它。原因在于更新这一步的舍入：`w - lr * gradient` 的结果要舍入到 float32，如果步长小于**半个 ulp**，结果就仍然是 `w`。
#
# 在解的附近，步长有多大？偏置很小，它自己的 ulp 也小得多，所以偏置会继续移动，直到与当前的权重相适应。此时权重的梯度只剩下 $2\,\mathrm{Var}(x)\,(w - 3.7)$。因此，只要权重离解不到 $0.5 / (2\,\eta\,\mathrm{Var}(x))$ 个 ulp，步长就小于半个 ulp。下面是种子 3 的最后几次移动：

# %%
x, y = make_rows(seed=3)
variance = x.double().var(correction=0).item()
long_path = train(x, y, lr=0.01, epochs=6000)


def step_in_ulp(w, b):
    """返回权重在路径上某一点的步长，以 float32 在 3.7 处的 ulp 为单位。"""
    weight = torch.tensor([[w]], dtype=torch.float32, requires_grad=True)
    prediction = nn.functional.linear(x, weight, torch.tensor([b], dtype=torch.float32))
    nn.functional.mse_loss(prediction, y).backward()
    return -0.01 * weight.grad.item() / ulp


print(f"0.5 / (2 lr Var(x)) = {0.5 / (2 * 0.01 * variance):.2f} ulp")
print(f"float32(3.7) - 3 ulp 到 3.7 的距离：{(3.7 - float32_target) / ulp + 3:.2f} ulp")
print(f"float32(3.7) - 4 ulp 到 3.7 的距离：{(3.7 - float32_target) / ulp + 4:.2f} ulp")
stays = []
for below in range(6, 2, -1):
    here = np.flatnonzero(long_path[:, 0] == float32_target - below * ulp)
    stays.append(
        {
            "权重": f"float32(3.7) - {below} ulp",
            "到达时的 epoch": here[0],
            "最后的 epoch": here[-1],
            "最后的步长（ulp）": round(step_in_ulp(*long_path[here[-1]]), 2),
        }
    )
pd.DataFrame(stays).set_index("权重")

# %% [markdown]
# 比正确值低 6、5、4 个 ulp 时，偏置逐渐适应，步长随之变大，一旦超过半个 ulp，权重就移动一个 ulp。低 3 个 ulp 时，步长始终不到半个 ulp，权重就停在那里。所以 `3.6999993324279785` 与数据无关，它只反映 float32 在这个学习率下的性质。
#
# float64 也有同样的停滞点，只是距离小 2²⁹ 倍。lntx 会一直算到最后一位：在解的附近，它计算出预测值的舍入误差，并把它从残差中扣除（见 [numerics](../docs/numerics.md)，英文）。

# %%
x64 = x.double()
torch.manual_seed(3)
float64_path = train(x64, 3.7 * x64, lr=0.01, epochs=10_000)
print(f"float64：与 3.7 之差小于 1e-14：{bool(abs(float64_path[-1, 0] - 3.7) < 1e-14)}")
print(f"float64：等于 3.7：{bool(float64_path[-1, 0] == 3.7)}")

table = pd.DataFrame({"x": x64.numpy().ravel(), "y": 3.7 * x64.numpy().ravel()})
same_rows = lntx.fit(table, target="y")
print(f"lntx：等于 3.7：{same_rows.learned_weights == (3.7,)}，共 {same_rows.epochs} 个 epoch")

# %% [markdown]
# ## 3. 标准化怎样改变损失曲面
#
# 需要将近 40,000 个 epoch，原因在于那个平缓方向。Hessian 矩阵的*条件数* $\kappa$ 是最大特征值与最小特征值之比，它说明损失的“山谷”有多狭长。最佳学习率是 $2/(\lambda_{max} + \lambda_{min})$，此时每个 epoch 把误差缩小到 $(\kappa - 1)/(\kappa + 1)$ 倍；如果条件数是 1，一步就能到达。
#
# 标准化就是换一套坐标：把 $x$ 平移到均值为 0，再缩放到标准差为 1。损失作为新权重和新偏置的函数，就成了一个圆形的碗。

# %%
hessian = 2 * np.array([[(x64**2).mean().item(), x64.mean().item()], [x64.mean().item(), 1.0]])
mean, deviation = x64.mean().item(), math.sqrt(variance)
# 原始单位的参数 = scaling @ 标准化坐标的参数。
scaling = np.array([[1 / deviation, 0.0], [-mean / deviation, 1.0]])
standardised = scaling.T @ hessian @ scaling


def condition_number(matrix):
    smallest, *_, largest = np.linalg.eigvalsh(matrix)
    return largest / smallest


def descend(matrix, start, end, *, lr, epochs):
    """返回梯度下降在一个二次函数上的路径，形状为 (epochs + 1, 2)。"""
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
# 灰线是等损失线，星号是解。左图中，蓝色路径几个 epoch 就落入谷底，然后沿着谷底缓慢爬行，300 个 epoch 之后仍未到达。右图中，一步就到达了。左图的橙色线是同一步，换回了原始数据的单位。
#
# lntx 的模型始终使用你的单位，只是把每个梯度乘以 $S S^\top$（即这里的 `scaling @ scaling.T`），这与在标准化坐标里下降完全等价。条件数由 lntx 自己测量，坐标也由它自己选择。对这批数据：

# %%
same = math.isclose(same_rows.condition_number, condition_number(hessian), rel_tol=1e-6)
print(f"条件数 {same_rows.condition_number:.1f}，与我们算的相等：{same}")
print(f"坐标 {same_rows.precondition}，学习率 {same_rows.learning_rate:.4f}，{same_rows.epochs} 个 epoch")

# %% [markdown]
# ## 4. 用 lntx 训练一个权重
#
# `lntx.run()` 用已知的权重（默认是 3.7）生成数据，训练模型，把结果与精确的最小二乘解以及真实权重比较，然后导出模型。导出的文件先由一个全新的进程读回并实际预测一次，运行才算通过。

# %%
run = lntx.run()
print(f"结论      {run.verdict}")
print(f"学到的权重 {run.learned_weights[0]}")
print(f"精确解    {run.reference_weights[0]}")
print(f"真实权重   {run.true_weights[0]}")
print(f"正确位数   {run.digits}（15.95 是 float64 的全部精度）")
print(f"epoch 数  {run.epochs}，学习率 {run.learning_rate:.6f}")
for name, stage in run.stages.items():
    print(f"{name:9} {stage.state}")

# %% [markdown]
# 只有一个权重、没有偏置时，只有一个方向，$\lambda = 2E[x^2]$，条件数是 1。lntx 从数据测出 $\lambda$，以 $1/\lambda$ 为学习率，一步就到达；其余的 epoch 用来消除舍入误差。

# %%
run.history[["x"]]

# %% [markdown]
# 这里没有做任何取整：导出文件里的权重就是训练得到的权重。不用 lntx 也可以读取这个文件：

# %%
print(load_file(Path(folder.name) / run.exports["safetensors"]))
print("预测 3：", lntx.predict(3))
print("预测四行：", lntx.predict([[1], [2], [3], [10]]))

# %% [markdown]
# 预设 `tutorial` 就是第 1 节的代码：float32，带偏置，学习率 0.001，10 个 epoch。lntx 不会导出这样的模型，而是说明哪里不对、为什么不对：

# %%
as_printed = lntx.run(preset="tutorial")
print(as_printed.verdict, "-", as_printed.reason)
print({name: stage.state for name, stage in as_printed.stages.items()})

# %% [markdown]
# （大意：学到的是 2.036，精确答案是 3.7；步数太少，以这个学习率大约需要 44,000 个 epoch；建议由数据决定步长。`--train.precondition auto` 是命令行的写法，在 Python 里写作 `train={"precondition": "auto"}`。）
#
# 哪些学习率能到达正确的权重？`lntx.run_sweep` 把它们放在一起训练；不可能收敛的学习率会被拒绝：

# %%
rates = lntx.run_sweep({"train.learning_rate": [0.001, 0.003, 0.01, 0.02, 0.03]})
for trial in sorted(rates.trials, key=lambda trial: trial.settings["train.learning_rate"]):
    print(trial.settings["train.learning_rate"], trial.error or f"{trial.verdict}, {trial.epochs} epochs")

# %% [markdown]
# ## 5. 三个权重和一个偏置
#
# 教程说，权重再多，`y = W1·x1 + W2·x2 + W3·x3`，过程也是一样的。但是，只有学习率低于*稳定上限* $2/\lambda_{max}$ 时，梯度下降才会收敛，而每增加一个特征，$\lambda_{max}$ 就会变大。对于 1 到 10 的整数，$E[x^2] = 38.5$，$E[x]^2 = 30.25$：

# %%
second_moment, squared_mean = 38.5, 30.25
for count in range(1, 5):
    largest = 2 * (second_moment + (count - 1) * squared_mean)
    print(f"{count} 个特征：稳定上限 {2 / largest:.4f}")

# %% [markdown]
# 有三个特征时，教程推荐的 0.01 正好处在稳定的边缘，抽到的数据决定它落在哪一边。下面用普通的 torch 代码，以 0.01 在 30 份数据上各训练 500 个 epoch：

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
print(f"30 份数据中，损失变大的有 {grew.sum()} 份，稳定上限低于 0.01 的有 {(limits < 0.01).sum()} 份")
print("两者是同一些数据：", bool((grew == (limits < 0.01)).all()))

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(limits[~grew], (last_losses / first_losses)[~grew], "o", color="tab:blue", label="converges")
axes.plot(limits[grew], (last_losses / first_losses)[grew], "s", color="tab:red", label="diverges")
axes.axvline(0.01, color="black", linewidth=0.8, linestyle="--", label="learning rate 0.01")
axes.set(yscale="log", xlabel=r"stable limit $2/\lambda_{max}$ of the rows", ylabel="last loss / first loss")
axes.legend()
plt.show()

# %% [markdown]
# 固定的学习率等于拿数据打赌。lntx 先测量曲率，再据此选择学习率和坐标：

# %%
three = lntx.run(data={"weights": [3.7, -1.2, 0.5], "bias": 2})
print(f"{three.verdict}，正确位数 {three.digits}，{three.epochs} 个 epoch")
print(f"条件数 {three.condition_number:.0f}，坐标 {three.precondition}")
print(f"学习率 {three.learning_rate:.4f}，这套坐标里的稳定上限 {three.stable_limit:.4f}")
pd.DataFrame(
    {
        "学到的": map(repr, [*three.learned_weights, three.learned_bias]),
        "精确解": map(repr, [*three.reference_weights, three.reference_bias]),
        "真实值": map(repr, [*three.true_weights, three.true_bias]),
    },
    index=[*three.features, "bias"],
)

# %% [markdown]
# 学到的偏置最后一位不对吗？不是。`y` 以 float64 存储，所以数据只是在舍入误差之内符合真实权重。训练要找的是*这批数据*的精确解，而精确解的最后一位也是如此。
#
# 高于稳定上限的学习率，在第一步之前就会被拒绝：

# %%
try:
    lntx.run(data={"weights": [3.7, -1.2, 0.5]}, train={"learning_rate": 0.02, "precondition": "none"})
except ValueError as error:
    print(error)

# %% [markdown]
# ## 6. 你自己的表格
#
# 真实表格的真实权重，没有人知道。这里我们自己造一张表，列名里带单位，数据里带噪声，最后就可以对照：200 套住房的月租金。

# %%
generator = np.random.default_rng(0)
flats = pd.DataFrame(
    {
        "面积_m2": generator.integers(20, 120, 200),
        "距离_km": generator.uniform(0.5, 20, 200).round(1),
        "房龄_年": generator.integers(0, 60, 200),
    }
)
made_with = {"面积_m2": 60.0, "距离_km": -90.0, "房龄_年": -15.0, "bias": 1500.0}
rent = sum(made_with[name] * flats[name] for name in flats) + made_with["bias"]
flats["月租金_元"] = (rent + generator.normal(0, 300, 200)).round(2)
flats.head()

# %%
rents = lntx.fit(flats, target="月租金_元")
rents

# %% [markdown]
# 面积每增加 1 m²，租金大约增加 60 元，估计的不确定程度见标准误（std. error）；`low` 和 `high` 是 95 % 置信区间的两端。这些数值与 R 的 `summary(lm)` 相同。因为表是我们自己造的，所以可以对照：

# %%
compared = rents.coefficients[["estimate", "standard_error", "low", "high"]].round(3)
compared.insert(0, "造表时的值", pd.Series(made_with))
compared["在区间内"] = compared["造表时的值"].between(compared["low"], compared["high"])
compared

# %% [markdown]
# **正确位数证明了什么。** 它比较的是*训练得到的*权重与这批数据的*精确*最小二乘解。精确解没有任何舍入，因此我们可以用整数构成的分数来核对：

# %%
columns = [*rents.features, 1]
rows = [[Fraction(1) if name == 1 else Fraction(float(row[name])) for name in columns] for _, row in flats.iterrows()]
targets = [Fraction(value) for value in flats["月租金_元"].tolist()]
size = len(columns)
# 正规方程，最后一列是右端项。
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

print("lntx 的精确解与我们的相同：", exact == [*rents.reference_weights, rents.reference_bias])
print(f"训练所得：最差系数的正确位数 {rents.digits:.2f}，最多相差 {rents.ulps:g} ulp")
errors = [*rents.standard_errors, rents.bias_standard_error]
print(f"标准误：至少 {min(np.array(errors) / np.spacing(np.abs(exact))):.0e} ulp")
learned = [*rents.learned_weights, rents.learned_bias]
pd.DataFrame({"分数": map(repr, exact), "训练所得": map(repr, learned)}, index=[*rents.features, "bias"])

# %% [markdown]
# 所以，正确位数说明：训练到达了精确解，只在 float64 的最后一位上可能有出入，机器或训练循环的错误没有留在权重里。它*不*说明租金真的以 16 位的精度服从这些权重。数据能把权重确定到什么程度，要看标准误，而标准误有许多亿个 ulp。线性模型是否合适，则要由你根据残差来判断（`lntx report` 会画出残差）。
#
# 预测时，各列按名称取用：

# %%
lntx.predict(pd.DataFrame({"距离_km": [3.0, 15.0], "房龄_年": [10, 40], "面积_m2": [60, 60]}))

# %% [markdown]
# ## 7. 金丝雀能看到什么
#
# 一条知道正确答案的流水线，可以用来验证整个软件栈的训练结果仍然正确。`lntx canary` 在临时文件夹里重新计算一切，不用任何缓存，并把*每个 epoch* 与第 1 节的闭式解比较，闭式解计算到 60 位。在终端里运行 `lntx canary --local`；在 Python 里：

# %%
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions

healthy = run_canary(root=folder.name)
print("结论：", healthy.verdict)
print(f"{healthy.cases[0].name}：比较了 {healthy.cases[0].path.epochs} 个 epoch")

# %% [markdown]
# 从来没有报过警的检查，说明不了什么。所以我们注入一个故障：训练过程中，一个权重的一个比特被翻转。（命令行：`lntx canary --local --inject flipped-weight-bit`；`--inject list` 列出所有故障。）

# %%
faulty = run_canary(CanaryOptions(inject="flipped-weight-bit"), root=folder.name)
print("结论：", faulty.verdict)
print("责任方：", faulty.blame)
print("原因：", faulty.reason)
print()
print("故障之后学到的：", [round(weight, 9) for weight in (*faulty.run.learned_weights, faulty.run.learned_bias)])
print("真实值：", [*faulty.run.true_weights, faulty.run.true_bias])
# 结论不通过时，文件会保留下来供查看；这里不需要。
shutil.rmtree(faulty.root)

# %% [markdown]
# 最终的权重仍然是对的：翻转的那个比特在后面的 epoch 里被梯度下降修正了。只看最终权重或只看损失的测试会通过；而逐个 epoch 比较路径，就能在故障发生的那个 epoch 发现它。
#
# **通过不能证明什么（已知局限）。**
#
# - 只有几个权重的模型，只用到机器很小的一部分。通过证明的是这条路径（数据、训练、导出），不是硬件的老化测试。`lntx canary --deep` 会检查五个更大的网络里的每个算子。
# - 有些故障小到一定程度，就会被舍入误差掩盖：

# %%
print(f"{faulty.fault.name} 的检测下限：{faulty.fault.limit}")

# %% [markdown]
# - 通过只对这台机器、这些版本、这个时刻有效。偶发故障可能一小时之后才出现，所以金丝雀要按计划运行（见 [canary](../docs/canary.md)，英文）。
# - 模型选错了，它的最小二乘解照样可以算得完全正确。你的列代表什么，lntx 无从知道。
#
# 最后一个单元格删除本 notebook 写下的所有文件。

# %%
folder.cleanup()
print("已删除：", not Path(folder.name).exists())
