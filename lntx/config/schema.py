"""The configuration of a run as frozen models, with each rule next to its field.

Defines defaults, ranges and presets; `loading` reads files and the environment.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lntx.base.text import MAX_NAME, quoted

Format = Literal["safetensors", "pt2", "onnx"]

SPELLING_KEYS = (
    "delimiter",
    "decimal",
    "encoding",
    "nulls",
    "header",
    "skip_lines",
    "skip_footer",
    "comment",
    "thousands",
    "symbols",
    "dates",
)
"""Keys of `data` that say how the text of a user's file is written."""

FILE_KEYS = (
    "target",
    "features",
    "weight",
    "polynomial",
    "missing",
    "categories",
    "exclude",
    "dependent",
    *SPELLING_KEYS,
)
"""Keys of `data` that say how a user's file is read; all others are for generated rows."""

FRAME = "frame:"
"""What the path of a data frame begins with, and the digest of its content in a key."""

MAX_SEED = 2**63 - 1
MAX_COUNT = 10**12
# Limits of what a server can store and return: integers of 64 bits, and no unpaired surrogates in text.
_STORABLE_NUMBER = {"minimum": -9e18, "maximum": 9e18}
STORABLE_TEXT: dict[str, Any] = {"pattern": r"^[^\ud800-\udfff]*$"}


def _exact(value: Any) -> Any:
    """Refuse an integer that float64 would round."""
    if type(value) is int and abs(value) < 10**300 and int(float(value)) != value:
        raise ValueError(f"{value} is a whole number that float64 cannot hold")
    return value


def _ordered(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        raise ValueError("a set has no order: give a list")
    return value


def _encoding(name: str) -> str:
    try:
        # An encoding of bytes, such as zip or hex, decodes no text; punycode and others no files.
        if codecs.lookup(name).name in ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"):
            raise LookupError
        "".encode(name)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{quoted(name)} is no text encoding: utf-8, latin-1 and cp1252 are common ones") from None
    return name


Number = Annotated[float, BeforeValidator(_exact), Field(json_schema_extra={**_STORABLE_NUMBER})]
Positive = Annotated[float, Field(gt=0, json_schema_extra={"maximum": 9e18})]
NotNegative = Annotated[float, Field(ge=0, json_schema_extra={"maximum": 9e18})]
FilePath = Annotated[str, Field(min_length=1, max_length=4096, json_schema_extra=STORABLE_TEXT)]
ColumnName = Annotated[str, Field(min_length=1, max_length=10_000, json_schema_extra=STORABLE_TEXT)]
# A column without a name, as of an index that was written to CSV, can be left out.
MaybeUnnamed = Annotated[str, Field(max_length=10_000, json_schema_extra=STORABLE_TEXT)]
Names = Annotated[tuple[ColumnName, ...] | None, BeforeValidator(_ordered)]
Sign = Annotated[str, Field(min_length=1, max_length=1, pattern=r"^[\t !#$%&'()*,/:;<=>?@\[\\\]^_`{|}~]$")]
# Squares of values and products of squares must not overflow float64.
MAX_MAGNITUDE = 1e100


class Section(BaseModel):
    """A frozen model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(Section, strict=True, use_attribute_docstrings=True):
    """What a person sets. A value has its type already, but for whole numbers where any number goes, lists where tuples
    go, and numpy's numbers and arrays. Text becomes values in `loading`.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_numpy(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    return value.tolist() if hasattr(value, "tolist") else value


class Data(Settings):
    """The rows: synthetic ones from known weights, or a table of the user (`path`)."""

    weights: Annotated[tuple[Number, ...] | None, BeforeValidator(_ordered)] = Field(
        None, strict=False, max_length=10_000
    )
    """True weights, one per feature; default: 3.7, or drawn weights if num_features is given."""

    num_features: int | None = Field(None, ge=1, le=10_000)
    """Number of features; their true weights are drawn from the seed."""

    bias: Number = 0.0
    """True bias: the value of y if every feature is 0."""

    noise: NotNegative = 0.0
    """Standard deviation of the normal noise added to y."""

    num_rows: int = Field(1000, ge=1, le=MAX_COUNT)
    """Number of rows to generate."""

    distribution: Literal["integers", "uniform", "normal"] = "integers"
    """How features are drawn: integers in low..high inclusive, uniform in [low, high), or normal with mean
    (low + high) / 2 and standard deviation (high - low) / 6."""

    low: Number = 1.0
    """Lower end of the range of the features."""

    high: Number = 10.0
    """Upper end of the range of the features."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the rows, and of drawn weights."""

    path: FilePath | None = None
    """A Parquet, Feather or CSV file to fit, or a folder or glob of Parquet files, instead of synthetic rows."""

    target: ColumnName | None = None
    """The column of the file to predict."""

    features: Names = Field(None, strict=False, max_length=10_000)
    """The columns of the file to predict from; default: all but the target."""

    weight: ColumnName | None = None
    """The column of the file with the weight of each row, in proportion to the inverse of the variance of its noise; it
    is no feature, and rows of weight 0 are left out. Default: all rows count alike."""

    polynomial: int | None = Field(None, ge=1, le=100)
    """Fit the powers 1…K of the only feature of the file."""

    missing: Literal["refuse", "drop"] = "refuse"
    """What to do with rows without a value in a column that is used: refuse the table, or leave those rows out."""

    dependent: Literal["refuse", "drop"] = "refuse"
    """What to do with a feature that is a linear combination of the bias and the features before it: refuse the table,
    or leave the feature out, as R does."""

    categories: Names = Field(None, strict=False, max_length=10_000)
    """Columns of the file that are categories: each level but the first becomes a feature of 0 and 1."""

    exclude: Annotated[tuple[MaybeUnnamed, ...] | None, BeforeValidator(_ordered)] = Field(
        None, strict=False, max_length=10_000
    )
    """Columns of the file that are no features, even if another key names them. A column without a name never is
    one."""

    delimiter: Literal["auto", "tab", "whitespace"] | Sign = "auto"
    """Character between the values of a CSV file, or tab, or whitespace (any number of spaces and tabs); auto: what
    stands between the names, if that is one of , ; | and tab, else the comma."""

    decimal: Literal[".", ","] = "."
    """Character before the decimals in a CSV file."""

    encoding: Annotated[str, AfterValidator(_encoding)] = Field("utf-8", max_length=40, json_schema_extra=STORABLE_TEXT)
    """Encoding of a CSV file."""

    nulls: Names = Field(None, strict=False, max_length=1000)
    """More words that stand for a missing value in a CSV file, beside an empty one, NA, null, nan and others."""

    header: Literal["auto", "first", "none"] = "auto"
    """Whether the first row of a CSV file has the names of the columns; none: they are called V1, V2 and so on; auto:
    first, and refused where it looks like values."""

    skip_lines: int = Field(0, ge=0, le=10_000)
    """Lines before the table in a CSV file."""

    skip_footer: int = Field(0, ge=0, le=10_000)
    """Lines after the table in a CSV file, such as notes or totals."""

    comment: Sign | None = None
    """Character that begins a line of a CSV file that is no row."""

    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """Character between groups of digits, as in 1,425.47."""

    symbols: Names = Field(None, strict=False, max_length=100)
    """What stands before or after a number in text and is left out, such as $ or % (5% becomes 5); () reads (5) as
    -5."""

    dates: Literal["refuse", "year-first", "day-first", "month-first"] = "refuse"
    """Read dates and times as days since 1970-01-01 (a time of day as a part of a day). The order is that of dates in
    text."""

    @property
    def true_weights(self) -> tuple[float, ...] | None:
        """The weights that generate the rows; None for a file."""
        if self.path is not None:
            return None
        if self.weights is None and self.num_features is not None:
            return draw_weights(self.num_features, self.seed)
        return (3.7,) if self.weights is None else self.weights

    @property
    def formula(self) -> str:
        """What generates the rows, in short, such as "y = [3.7, -1.2]·x, 500 rows"; not for a file."""
        weights = self.true_weights or ()
        shown = ", ".join(f"{weight:.4g}" for weight in weights[:3]) + (", …" if len(weights) > 3 else "")
        return f"y = [{shown}]·x, {self.num_rows:,} rows"

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.path is None:
            self._check_synthetic()
        else:
            self._check_file()
        return self

    def _check_synthetic(self) -> None:
        for key in FILE_KEYS:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"data.{key} needs data.path: a file of your own")
        if self.weights is not None:
            if not self.weights:
                raise ValueError("data.weights must have at least one weight, got none")
            if self.num_features not in (None, len(self.weights)):
                count = len(self.weights)
                raise ValueError(
                    f"data.num_features is {self.num_features} but data.weights has {count} values: give one"
                )
        if self.low > self.high:
            raise ValueError(f"data.low must not exceed data.high, got {self.low:g} and {self.high:g}")
        if self.distribution == "integers":
            for key in ("low", "high"):
                value = getattr(self, key)
                if value != math.floor(value) or abs(value) > 2**31:
                    raise ValueError(f"data.{key} must be a whole number within ±2^31 for integers, got {value:g}")
        largest = max(abs(self.low), abs(self.high), 1.0)
        assert self.true_weights is not None
        reach = (sum(abs(weight) for weight in self.true_weights) + abs(self.bias) + self.noise) * largest
        if not max(reach, largest) < MAX_MAGNITUDE:
            raise ValueError(f"weights times features must stay below {MAX_MAGNITUDE:g}, got about {reach:g}")

    def _check_file(self) -> None:
        if self.target is None:
            raise ValueError("data.target is missing: name the column of the file to predict")
        for key, field in type(self).model_fields.items():
            if key not in ("path", *FILE_KEYS) and getattr(self, key) != field.default:
                raise ValueError(f"data.{key} is for generated rows, and data.path names a file: drop one")
        if self.polynomial is not None and self.categories:
            raise ValueError("data.polynomial takes the powers of numbers, and data.categories names columns: drop one")
        for key, other in (("delimiter", "decimal"), ("delimiter", "comment"), ("decimal", "thousands")):
            if getattr(self, key) == getattr(self, other):
                raise ValueError(f"data.{key} and data.{other} are both {quoted(getattr(self, key))}: change one")
        if self.path is not None and (address := re.match(r"(?!frame:)[a-z][a-z0-9+.-]+:/", self.path)):
            raise ValueError(
                f"data.path begins with {quoted(address[0])}, and lntx reads files of this machine: copy it here first"
            )
        for key in ("exclude", "features"):
            if self.target in (getattr(self, key) or ()):
                raise ValueError(f"data.target {quoted(self.target, MAX_NAME)} is also among data.{key}")
        self._check_features()

    def _check_features(self) -> None:
        if self.features is not None:
            if not self.features:
                raise ValueError("data.features must name at least one column, got none")
            if self.polynomial is not None and len(self.features) > 1:
                raise ValueError(f"data.polynomial takes the powers of one feature, got {len(self.features)}")
            twice = sorted({name for name in self.features if self.features.count(name) > 1})
            if twice:
                raise ValueError(f"data.features names {quoted(twice[0], MAX_NAME)} twice")


class Train(Settings):
    """How the weights are learned."""

    bias: bool | Literal["auto"] = "auto"
    """Learn a bias; auto: for a file always, for synthetic rows if data.bias is not 0."""

    dtype: Literal["float64", "float32"] = "float64"
    """Type of the weights and of the arithmetic on rows."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device for training; auto: the CPU."""

    learning_rate: Literal["auto"] | Positive = "auto"
    """Step size of SGD, in the coordinates of train.precondition; auto: derived from the curvature of the loss."""

    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of SGD."""

    batch_size: int | None = Field(None, ge=1, le=MAX_COUNT)
    """Rows per step; None: all rows (full batch)."""

    max_epochs: int = Field(1000, ge=1, le=MAX_COUNT)
    """Maximum number of passes over the rows."""

    tolerance: Literal["auto"] | NotNegative = "auto"
    """Stop when no weight moves by more than this, relative to its scale; auto: rounding level; 0: never."""

    gradient: Literal["auto", "autograd", "moments"] = "auto"
    """How gradients are computed: by loss.backward() on rows (autograd), or from sums over the rows, where one pass
    serves many epochs (moments); auto: moments for more than 10^6 rows, for rows that are not kept in memory (more
    than 64 MiB), and for ill-conditioned columns."""

    precondition: Literal["auto", "none", "standardize", "qr"] = "auto"
    """Coordinates of the descent; auto: chosen by the condition number of the data."""

    num_threads: int = Field(1, ge=1, le=1024)
    """Threads of torch's arithmetic on rows; with more than one, the last bits of sums depend on the number."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the initial weights and of shuffling."""


class Evaluate(Settings):
    """What counts as the right answer."""

    rtol: NotNegative | None = None
    """Relative error allowed per coefficient; None: the default of torch.testing for the dtype (1e-7, 1.3e-6)."""

    false_alarm_rate: float = Field(1e-6, gt=0, lt=1)
    """Probability per run that noise alone makes a correct solution fail."""

    shift_limit: Positive = 4.0
    """Standard errors by which a weight of a user's file may change between passing runs without a warning."""


class Export(Settings):
    """How the model is exported."""

    formats: tuple[Format, ...] = Field(("safetensors", "pt2"), strict=False, max_length=len(get_args(Format)))
    """File formats; onnx needs the extra `lntx[onnx]`."""

    @model_validator(mode="after")
    def _check(self) -> Export:
        if not self.formats:
            raise ValueError("export.formats must name at least one format, got none")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError(f"export.formats names a format twice: {', '.join(self.formats)}")
        return self


class Pipeline(Settings):
    """The whole configuration: one section per stage."""

    data: Data = Data()
    """Source of the rows."""

    train: Train = Train()
    """How the weights are learned."""

    evaluate: Evaluate = Evaluate()
    """What counts as the right answer."""

    export: Export = Export()
    """How the model is exported."""

    @model_validator(mode="after")
    def _check(self) -> Pipeline:
        if self.data.bias != 0 and self.train.bias is False:
            raise ValueError(
                f"train.bias is false but data.bias is {self.data.bias:g}: the model could not be right; drop one"
            )
        return self

    @property
    def learns_bias(self) -> bool:
        """Whether the model has a bias, with `auto` resolved."""
        if self.train.bias == "auto":
            return self.data.path is not None or self.data.bias != 0
        return self.train.bias


def draw_weights(num_features: int, seed: int) -> tuple[float, ...]:
    """Draw true weights, uniform in [-10, 10), from a random stream that no rows use.

    Returns: num_features weights; the first k are the same for every num_features >= k.
    """
    import numpy as np

    # Streams of rows have a spawn key, so this stream without one is different from all of them.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return tuple(generator.uniform(-10, 10, num_features).tolist())


# The tutorial's code unchanged: default nn.Linear (with a bias), float32, SGD(lr=0.001), 10 epochs of all rows.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tutorial": {
        "data": {"weights": (3.7,), "num_rows": 1000, "distribution": "integers", "low": 1, "high": 10},
        "train": {
            "bias": True,
            "dtype": "float32",
            "learning_rate": 0.001,
            "max_epochs": 10,
            "tolerance": 0,
            "gradient": "autograd",
            "precondition": "none",
        },
    }
}


def changed_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Return the settings that differ from the defaults, by dotted key, as JSON values."""
    sections = pipeline.model_dump(mode="json", exclude_defaults=True)
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
