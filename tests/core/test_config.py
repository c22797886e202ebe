"""Configuration: layers, rules, and one clear line for each refusal. Run: pytest tests/core/test_config.py"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import lntx
from lntx.base.errors import BadInput
from lntx.base.stages import STAGES, select
from lntx.config.loading import KEYS, settle
from lntx.config.schema import PRESETS, Data, Pipeline


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"data": {"num_row": 5}}, "unknown key data.num_row: did you mean data.num_rows?"),
        ({"dta": {"num_rows": 5}}, "unknown section dta: did you mean data?"),
        ({"data": {"num_rows": "many"}}, "data.num_rows must be an integer, got 'many'"),
        ({"data": {"num_rows": 0}}, "data.num_rows must be greater than or equal to 1, got 0"),
        ({"data": {"num_rows": -3}}, "data.num_rows must be greater than or equal to 1, got -3"),
        ({"data": {"weights": []}}, "data.weights must have at least one weight, got none"),
        ({"data": {"weights": [float("nan")]}}, "data.weights.0 must be a finite number, got nan"),
        ({"data": {"weights": [1.0, float("inf")]}}, "data.weights.1 must be a finite number, got inf"),
        ({"data": {"weights": [1e200]}}, "weights times features must stay below 1e+100"),
        ({"data": {"weights": [1.0, 2.0], "num_features": 3}}, "data.num_features is 3 but data.weights has 2 values"),
        ({"data": {"low": 3, "high": 1}}, "data.low must not exceed data.high, got 3 and 1"),
        ({"data": {"low": 0.5}}, "data.low must be a whole number"),
        ({"data": {"target": "y"}}, "data.target needs data.path"),
        ({"data": {"path": "rows.csv"}}, "data.target is missing"),
        ({"data": {"path": "rows.csv", "target": "y", "noise": 1.0}}, "data.noise is for generated rows"),
        ({"data": {"path": "rows.csv", "target": "y", "features": ["y"]}}, "data.target 'y' is also among"),
        ({"train": {"learning_rate": "fast"}}, "train.learning_rate must be 'auto' or a number"),
        ({"train": {"learning_rate": 0}}, "train.learning_rate must be 'auto' or greater than 0, got 0"),
        ({"train": {"momentum": 1.0}}, "train.momentum must be less than 1, got 1.0"),
        ({"train": {"dtype": "float16"}}, "train.dtype must be 'float64' or 'float32', got 'float16'"),
        ({"train": {"bias": False}, "data": {"bias": 2.0}}, "train.bias is false but data.bias is 2"),
        ({"export": {"formats": []}}, "export.formats must name at least one format"),
        ({"export": {"formats": ["pt2", "pt2"]}}, "export.formats names a format twice"),
    ],
)
def test_a_refusal_names_the_key_the_rule_and_the_value(overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        settle(overrides=overrides)
    message = str(caught.value)
    assert line in message
    assert len(message.splitlines()) == 1
    assert caught.value.exit_code == 2


def test_later_layers_win(tmp_path: Path) -> None:
    """Defaults, preset, file, environment, flags: each overrides those before it."""
    file = tmp_path / "lntx.toml"
    file.write_text("[train]\nmax_epochs = 20\nseed = 2\nmomentum = 0.5\n")
    environment = {"LNTX_TRAIN_SEED": "3", "LNTX_TRAIN__MOMENTUM": "0.6", "LNTX_ROOT": "elsewhere"}
    found = settle(preset="tutorial", file=file, environment=environment, overrides={"train": {"momentum": 0.7}})
    assert found.train.dtype == "float32"  # the preset's
    assert found.train.max_epochs == 20  # the file's
    assert found.train.seed == 3  # the environment's
    assert found.train.momentum == 0.7  # said last


def test_the_environment_may_hold_lists_and_must_hold_known_keys() -> None:
    assert settle(environment={"LNTX_DATA_WEIGHTS": "1.5,-2"}).data.weights == (1.5, -2.0)
    assert settle(environment={"LNTX_DATA_WEIGHTS": "[1.5, -2]"}).data.weights == (1.5, -2.0)
    with pytest.raises(BadInput, match="LNTX_DATA_SED: did you mean LNTX_DATA_SEED"):
        settle(environment={"LNTX_DATA_SED": "1"})


def test_keys_that_python_could_not_name_are_named_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "dashes.toml"
    file.write_text("[data]\nnum-rows = 5\n")
    with pytest.raises(BadInput, match=r"unknown key data\.num-rows: did you mean data\.num_rows\?"):
        settle(file=file)
    assert settle(environment={"LNTX_DATA_PATH": "a.csv", "LNTX_DATA_TARGET": "1"}).data.target == "1"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        settle(file=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("train = [")
    with pytest.raises(BadInput, match="is not TOML"):
        settle(file=broken)
    with pytest.raises(BadInput, match="preset must be one of tutorial, got 'tutorail'"):
        settle(preset="tutorail")


@pytest.mark.parametrize(
    "overrides", [{}, {"data": {"num_features": 3, "seed": 4}}, {"data": {"path": "rows.csv", "target": "y"}}]
)
def test_a_settled_configuration_survives_json(overrides: dict[str, Any]) -> None:
    """Prefect sends parameters as JSON: nothing may change on the way."""
    found = settle(overrides=overrides)
    assert Pipeline.model_validate_json(found.model_dump_json()) == found


def test_drawn_weights_follow_the_seed_and_not_their_number() -> None:
    three = settle(overrides={"data": {"num_features": 3, "seed": 1}}).data.true_weights
    five = settle(overrides={"data": {"num_features": 5, "seed": 1}}).data.true_weights
    other = settle(overrides={"data": {"num_features": 3, "seed": 2}}).data.true_weights
    assert three is not None
    assert five is not None
    assert five[:3] == three
    assert other != three


def test_the_tutorial_preset_is_what_its_code_says() -> None:
    found = settle(preset="tutorial")
    assert found.data.weights == (3.7,)
    assert (found.data.num_rows, found.data.low, found.data.high) == (1000, 1, 10)
    assert found.learns_bias
    train = found.train
    assert (train.dtype, train.learning_rate, train.max_epochs) == ("float32", 0.001, 10)
    assert (train.tolerance, train.precondition, train.batch_size, train.momentum) == (0, "none", None, 0)
    assert set(PRESETS) == {"tutorial"}


def test_stages_are_selected_as_asked() -> None:
    assert select().stages == STAGES
    assert select(from_stage="train").stages == ("train", "evaluate", "export")
    assert select(until="train").stages == ("generate", "train")
    assert select(only="evaluate", force=["all"]).forced == {"evaluate"}
    with pytest.raises(BadInput, match="--from export comes after --until train"):
        select(from_stage="export", until="train")
    with pytest.raises(BadInput, match="cannot be combined"):
        select(only="train", until="export")
    with pytest.raises(BadInput, match="not among those selected"):
        select(only="train", force=["export"])
    with pytest.raises(BadInput, match="must name stages"):
        select(force=["trian"])


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "seed", True),
        ("data", "num_rows", 3.0),
        ("data", "weights", ["1"]),
        ("data", "weights", [True]),
        ("data", "bias", "1"),
        ("train", "bias", "yes"),
        ("train", "bias", 1),
        ("train", "max_epochs", 3.0),
        ("train", "max_epochs", "3"),
        ("train", "max_epochs", 10**30),
        ("train", "learning_rate", True),
        ("train", "momentum", "0.5"),
        ("export", "formats", "pt2"),
    ],
)
def test_a_value_has_its_type_already(tmp_path: Path, section: str, key: str, value: Any) -> None:
    """In Python, as flow parameters, and in TOML alike."""
    with pytest.raises(BadInput, match=rf"{section}\.{key}"):
        settle(overrides={section: {key: value}})
    with pytest.raises(ValidationError):
        type(getattr(Pipeline(), section)).model_validate({key: value})
    if value != 10**30:
        file = tmp_path / "a.toml"
        file.write_text(f"[{section}]\n{key} = {json.dumps(value)}\n")
        with pytest.raises(BadInput, match=rf"{section}\.{key}"):
            settle(file=file)


def test_a_number_out_of_its_range_is_told_as_one() -> None:
    for name, rule in (("TRAIN_LEARNING_RATE", "greater than 0"), ("EVALUATE_RTOL", "greater than or equal to 0")):
        with pytest.raises(BadInput, match=rule):
            settle(environment={f"LNTX_{name}": "-1"})


def test_numbers_of_numpy_are_numbers() -> None:
    found = Data.model_validate({"seed": np.int64(3), "weights": np.array([1.5, 2.0]), "bias": np.float32(0.5)})
    assert (found.seed, type(found.seed), found.weights, found.bias) == (3, int, (1.5, 2.0), 0.5)
    assert settle(overrides={"data": {"weights": [np.float64(1.5)]}}).data.weights == (1.5,)
    for value in (np.float64(3.0), np.bool_(True)):
        with pytest.raises(BadInput, match="must be an integer"):
            settle(overrides={"data": {"seed": value}})


def test_whole_numbers_are_numbers_and_lists_are_tuples() -> None:
    found = settle(overrides={"data": {"weights": [1, 2.5], "bias": 2}, "train": {"learning_rate": 1}})
    assert found.data.weights == (1.0, 2.5)
    assert found.data.bias == 2.0
    assert type(found.train.learning_rate) is float


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LNTX_TRAIN_MAX_EPOCHS", "30", 30),
        ("LNTX_TRAIN_BIAS", "true", True),
        ("LNTX_TRAIN_BIAS", "auto", "auto"),
        ("LNTX_TRAIN_BATCH_SIZE", "null", None),
        ("LNTX_TRAIN_LEARNING_RATE", "1e-3", 0.001),
        ("LNTX_EXPORT_FORMATS", "pt2,onnx", ("pt2", "onnx")),
    ],
)
def test_the_environment_is_read_by_the_type_of_its_key(name: str, text: str, value: Any) -> None:
    _, section, key = name.lower().split("_", 2)
    found = getattr(getattr(settle(environment={name: text}), section), key)
    assert (found, type(found)) == (value, type(value))


def test_every_parameter_has_bounds_that_a_server_can_check() -> None:
    """No number beyond 64 bits, no text without end, no list without end, and no half of a surrogate pair."""
    schema = Pipeline.model_json_schema()
    waiting = [schema, *schema["$defs"].values()]
    checked = 0
    while waiting:
        one = waiting.pop()
        waiting += [*one.get("properties", {}).values(), *one.get("anyOf", []), *filter(None, [one.get("items")])]
        kind = one.get("type")
        if kind in ("integer", "number"):
            assert max(abs(one.get("maximum", one.get("exclusiveMaximum", 1e99))), -one.get("minimum", 0)) < 2**63 + 1
            assert "minimum" in one or "exclusiveMinimum" in one
        elif kind == "string" and not {"const", "enum"} & set(one):
            assert one["maxLength"] <= 10_000
            assert re.fullmatch(one["pattern"], "\ud800") is None
        elif kind == "array":
            assert one["maxItems"] <= 10_000
        elif kind == "object":
            assert one["additionalProperties"] is False
        checked += kind is not None
    assert checked > 30


def test_every_key_is_read_somewhere() -> None:
    """A key that changes nothing is a lie: its value must be read as an attribute, and not to check it alone."""
    read: set[str] = set()
    for package in ("lntx", "flows"):
        for path in (Path(lntx.__file__).parents[1] / package).rglob("*.py"):
            nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
            while nodes:
                node = nodes.pop()
                if not (isinstance(node, ast.FunctionDef) and node.name.startswith("_check")):
                    nodes += ast.iter_child_nodes(node)
                if isinstance(node, ast.Attribute):
                    read.add(node.attr)
    assert [key for key in KEYS if key.split(".")[1] not in read] == []
