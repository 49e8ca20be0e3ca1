"""Configurations: typed, nothing unknown, all problems at once, what may change between two starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.contract import Group, MethodError
from models.contract.start_files import with_start_file
from models.registry import baseline_names, get_method, method_names
from trainer.config.recipe import RECIPES, _note, build_config, find_recipe, override
from trainer.config.schema import Config, Optim, differences, parse
from trainer.config.shared import SHARED
from trainer.downstream.task.read import parse_task
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import engine_config
from trainer.engine.engine import bucket_size, deepspeed_config, split_batch
from trainer.engine.optimizers import make_optimizer
from trainer.engine.schedule import learning_rate
from trainer.errors import UserError

ROOT = Path(__file__).parent.parent.parent


def test_every_problem_is_reported_at_once_with_the_nearest_key() -> None:
    wrong = {"method_name": "gimp", "globl_batch": 3, "optim": {"lrr": 1, "lr": -1}, "zero": {"stage": 7}}
    with pytest.raises(UserError) as e:
        parse(wrong)
    text = str(e.value)
    assert "4 problems" in text
    assert "globl_batch: unknown key; did you mean 'global_batch'?" in text
    assert "optim.lrr: unknown key; did you mean 'lr'?" in text
    assert "zero.stage: Input should be 0, 1, 2 or 3 (got 7)" in text


def test_rules_between_keys() -> None:
    with pytest.raises(UserError) as e:
        parse(
            {
                "method_name": "gimp", "epochs": 1, "steps": 2, "precision": "bf16",
                "zero": {"stage": 0, "offload_params": "cpu"}, "stages": {"gene": {"optim": {"wieght_decay": 1}}},
            }
        )  # fmt: skip
    text = str(e.value)
    assert "give one of them, not both" in text
    assert "zero.stage=1" in text
    assert "set zero.stage=3" in text
    assert "stages.gene.optim.wieght_decay: unknown key; did you mean 'weight_decay'?" in text


def test_overrides() -> None:
    assert override({"optim": {"lr": 1}}, ["optim.lr=3e-4", "data.path=[a, b]", "out=x"]) == {
        "optim": {"lr": 3e-4},
        "data": {"path": ["a", "b"]},
        "out": "x",
    }
    with pytest.raises(UserError, match=r"(?s)2 problems.*'lr': overrides are written.*'out.x=1': out is a value"):
        override({"out": "a"}, ["lr", "out.x=1"])


def test_a_length_on_the_command_line_replaces_the_recipes() -> None:
    config, path = build_config("gimp", None, ["steps=5", "stages.gene.steps=2"])
    assert path == RECIPES / "gimp" / "demo.yaml"
    assert (config.steps, config.epochs) == (5, None)
    assert (config.stages["gene"].steps, config.stages["gene"].epochs) == (2, None)
    assert build_config("gimp", None, ["data.path=x"])[1] == RECIPES / "gimp" / "recommended.yaml"


def test_unknown_names_give_the_nearest() -> None:
    for wrong in ("papr", "gimp-papr"):
        with pytest.raises(UserError, match=f"no recipe '{wrong}' of gimp.*did you mean 'paper'"):
            build_config("gimp", wrong, [])
    with pytest.raises(MethodError, match="no method 'gimb'; did you mean 'gimp'"):
        build_config("gimb", None, [])
    with pytest.raises(UserError, match="no such file"):
        build_config("gimp", "nothing.yaml", [])


def test_names_of_before_are_understood_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    _note.cache_clear()
    for before, today in (("gimp-demo", "demo"), ("gimp-paper", "paper"), ("gimp", "recommended")):
        for _ in range(2):
            assert find_recipe("gimp", before, False) == RECIPES / "gimp" / f"{today}.yaml"
        said = capsys.readouterr()
        assert said.err == f"note: --recipe {before} is called --recipe {today} today\n", "said once"
        assert said.out == "", "--print-config writes YAML there"
    assert find_recipe("gimp", "demo", False) == RECIPES / "gimp" / "demo.yaml"
    assert capsys.readouterr().err == ""


def test_another_methods_recipe_is_refused() -> None:
    with pytest.raises(UserError, match="mgi-demo is a recipe of mgi, not of gimp: give --method mgi"):
        find_recipe("gimp", "mgi-demo", False)


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_recipe_is_valid_and_makes_its_claim(path: Path) -> None:
    method = path.parent.name
    config, found = build_config(method, path.stem, [])
    assert found == path
    options, given = get_method(method).Options, config.method
    if given.get("image", {}).get("init") == "file":  # the recipe asks for a file that everyone has somewhere else
        given = with_start_file(options, given, "mae.pth") or {}
    options.parse(given)
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in head, f"{path.name}: its head comment lacks {word}"


def test_every_method_has_its_three_recipes() -> None:
    wanted = [RECIPES / m / f"{n}.yaml" for m in method_names() for n in ("recommended", "paper", "demo")]
    assert not [p for p in wanted if not p.exists()]
    assert {p.name for p in RECIPES.iterdir()} <= {*method_names(), *baseline_names()}, "recipes of no method"


def test_every_key_is_documented() -> None:
    sections = [Config, *(f.annotation for f in Config.model_fields.values() if hasattr(f.annotation, "model_fields"))]
    silent = {f"{s.__name__}.{n}" for s in sections for n, f in s.model_fields.items() if not f.description}
    # These say all there is to say by their names.
    assert silent <= {
        "Config.seed", "Config.precision", "Config.zero", "Config.optim", "Config.data", "Config.checkpoint", "Config.health",
        "Config.log", "Config.resume", "Optim.betas", "Optim.eps", "Data.split", "Log.tensorboard",
    }  # fmt: skip


def test_only_what_decides_the_result_is_compared() -> None:
    old = {"optim": {"lr": 1.0}, "data": {"workers": 2, "path": "a"}, "checkpoint": {"every": 3}, "seed": 0}
    new = {"optim": {"lr": 2.0}, "data": {"workers": 4, "path": "b"}, "checkpoint": {"every": 9}, "seed": 0}
    assert differences(old, new) == ["optim.lr: 1.0 -> 2.0"]
    told = {"data": {"path": "a", "set": {"name": "a", "licence": "CC0-1.0"}}}
    assert differences({"data": {"path": "a"}}, told) == [], "a folder of before says nothing of its data"


@pytest.mark.parametrize(("world", "message"), [(3, "use 15 or 18"), (32, "use 32, or another number of ranks")])
def test_a_global_batch_that_the_ranks_do_not_divide(world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_batch(parse({"method_name": "gimp", "global_batch": 16}), world)


def test_accumulation_is_derived() -> None:
    config = parse({"method_name": "gimp", "global_batch": 32, "micro_batch": 4})
    assert split_batch(config, 2) == (4, 4)
    with pytest.raises(UserError, match=r"use one of \[1, 2, 4, 8, 16\]"):
        split_batch(parse({"method_name": "gimp", "global_batch": 32, "micro_batch": 3}), 2)


def test_raw_deepspeed_keys_are_laid_over_ours() -> None:
    config = parse({"method_name": "gimp", "deepspeed": {"zero_optimization": {"round_robin_gradients": True}}})
    made = deepspeed_config(config, "pretrain", 1, 1000, False, False)
    assert made["zero_optimization"]["round_robin_gradients"] is True
    assert made["zero_optimization"]["reduce_bucket_size"] == 1000, "a bucket is no larger than the model"


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [(1000, 1000), (1001, 1002), (4_000_000, 1_000_000), (86_000_000, 10_750_000), (10**9, 50_000_000)],
)
def test_the_bucket_that_runs_is_the_one_that_is_predicted(trainable: int, expected: int) -> None:
    """An eighth of the model within 1e6 and 5e7, as docs/training.md says; a whole-model bucket would save ZeRO-2 nothing."""
    for stage in (1, 2, 3):
        config = parse({"method_name": "gimp", "zero": {"stage": stage}})
        zero = deepspeed_config(config, "pretrain", 2, trainable, False, False)["zero_optimization"]
        assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == bucket_size(trainable) == expected


def test_the_learning_rate_by_hand() -> None:
    optim = Optim(lr=1.0, warmup=0.2, schedule="cosine", min_lr=0.1)
    got = [learning_rate(optim, u, 10) for u in range(10)]
    assert got[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert got[6] == pytest.approx(0.1 + 0.9 / 2)  # half way down
    assert learning_rate(optim, 10, 10) == pytest.approx(0.1)
    assert learning_rate(Optim(lr=2.0, warmup=0, schedule="linear"), 5, 10) == pytest.approx(1.0)
    assert learning_rate(Optim(lr=2.0, warmup=0, schedule="constant"), 9, 10) == 2.0


def test_the_learning_rate_is_scaled_by_the_batch_it_is_meant_for() -> None:
    config = parse({"global_batch": 8, "method_name": "gimp", "optim": {"lr": 1e-3, "min_lr": 1e-5, "lr_batch": 256}})
    assert config.optim_of("pretrain").lr == pytest.approx(1e-3 / 32)
    assert config.optim_of("pretrain").min_lr == pytest.approx(1e-5 / 32)
    other = {"stages": {"pretrain": {"optim": {"lr_batch": None}}}}
    assert parse({**config.model_dump(), **other}).optim_of("pretrain").lr == 1e-3
    recommended, _ = build_config("mrm_relation", "mrm_relation", ["global_batch=8"])
    assert recommended.optim_of("pretrain").lr == pytest.approx(3.1e-5, rel=0.01), "the rate of the TCGA runs"
    paper, _ = build_config("mrm_relation", "paper", ["global_batch=8"])
    assert paper.optim_of("pretrain").lr == 1e-3


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimisers_are_those_they_are_called(kind: str) -> None:
    """Two steps on one weight, by hand; decay is decoupled in AdamW, part of the gradient in the others."""
    w, optim, lr, decay = 2.0, Optim(kind=kind, betas=(0.9, 0.95)), 0.1, 0.5
    p = torch.nn.Parameter(torch.tensor(w, dtype=torch.float64))
    made = make_optimizer([Group("one", [p])], optim.model_copy(update={"lr": lr, "weight_decay": decay}), fused=False)
    m = v = 0.0
    for t, gradient in enumerate((1.0, -3.0), 1):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        made.step()
        g = gradient if kind == "adamw" else gradient + decay * w
        if kind == "sgd":
            m = 0.9 * m + g
            w -= lr * m
            continue
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w = w * (1 - lr * decay) if kind == "adamw" else w
        w -= lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-8)
    assert p.item() == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_lars_is_you_et_als_and_leaves_flat_groups_their_rate(decay: float) -> None:
    """Three steps by hand, the rate changing in between, the state saved and loaded after the first."""
    random = torch.Generator().manual_seed(0)
    start = {
        "w": torch.randn(3, 4, generator=random),
        "zero": torch.zeros(2, 2),
        "bias": torch.randn(3, generator=random),
    }
    grads = [{n: torch.randn(v.shape, generator=random) for n, v in start.items()} for _ in range(3)]
    optim = Optim(kind="lars", betas=(0.9, 0.95), weight_decay=decay)

    def made(values: dict[str, torch.Tensor]) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        own = {n: torch.nn.Parameter(v.clone()) for n, v in values.items()}
        groups = [Group("decay", [own["w"], own["zero"]]), Group("flat", [own["bias"]], decay_scale=0.0)]
        return own, make_optimizer(groups, optim, fused=False)

    own, optimizer = made(start)
    want, moved = (
        {n: v.double() for n, v in start.items()},
        {n: torch.zeros(v.shape).double() for n, v in start.items()},
    )
    for step, lr in enumerate((0.3, 0.2, 0.1)):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, p in own.items():
            p.grad = grads[step][name].clone()
            g, w = grads[step][name].double(), want[name]
            norm = float(w.norm())
            rate = 0.001 * norm / float(g.norm() + decay * norm) if name != "bias" and norm > 0 else 1.0
            moved[name] = 0.9 * moved[name] + rate * (g + (0.0 if name == "bias" else decay) * w)
            want[name] = w - lr * moved[name]
        optimizer.step()
        state = optimizer.state_dict()
        own, optimizer = made({n: p.detach() for n, p in own.items()})
        optimizer.load_state_dict(state)
    for name, p in own.items():
        torch.testing.assert_close(p.detach().double(), want[name], rtol=1e-5, atol=1e-7, msg=name)


def test_lars_is_refused_where_weights_are_cut_into_pieces() -> None:
    with pytest.raises(UserError) as raised:
        parse(
            {
                "method_name": "gimp",
                "zero": {"stage": 2},
                "stages": {"gene": {"optim": {"kind": "lars"}}},
                "optim": {"kind": "lars"},
            }
        )
    said = str(raised.value)
    assert "optim.kind=lars with zero.stage=2: its rates need the norm of each weight" in said
    assert "stages.gene.optim.kind=lars" in said
    assert parse({"method_name": "gimp", "zero": {"stage": 0}, "optim": {"kind": "lars"}}).optim.kind == "lars"


def test_the_command_line_is_frozen() -> None:
    """A new option or top-level key is a deliberate act."""
    from launch.pretrain import parser

    options = sorted(o for a in parser()._actions for o in a.option_strings)
    assert options == [
        "--all",
        "--dry-run",
        "--help",
        "--local_rank",
        "--method",
        "--print-config",
        "--recipe",
        "--world",
        "-h",
    ]
    assert sorted(Config.model_fields) == sorted(
        [
            "title",
            "activation_checkpointing",
            "checkpoint",
            "compile",
            "data",
            "deepspeed",
            "epochs",
            "global_batch",
            "health",
            "log",
            "matmul",
            "method",
            "method_name",
            "micro_batch",
            "monitor",
            "optim",
            "out",
            "precision",
            "resume",
            "seed",
            "stages",
            "steps",
            "zero",
        ]
    )


@pytest.mark.parametrize("script", ["pretrain.py", "doctor.py"])
def test_help_answers_without_torch(script: str) -> None:
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'deepspeed', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "launch" / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_the_printed_config_is_yaml_that_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    from launch.pretrain import main

    assert main(["--method", "gimp", "--print-config", "optim.lr=0.5"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["optim"]["lr"] == 0.5
    assert values["method"]["margin"] == 0.8
    assert parse(values).optim.lr == 0.5


def test_options_and_overrides_come_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    from launch.pretrain import main

    assert main(["optim.lr=0.25", "--method", "gimp", "seed=3", "--print-config", "steps=7"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["optim"]["lr"], values["seed"], values["steps"]) == (0.25, 3, 7)


def test_runs_and_tasks_hold_the_same_settings_and_a_task_hands_all_of_them_on(tmp_path: Path) -> None:
    task = parse_task({
        "name": "t", "kind": "binary", "label": "y", "precision": "bf16", "matmul": "auto", "activation_checkpointing": True,
        "zero": {"stage": 2}, "checkpoint": {"keep": 7}, "health": {"max_bad_steps": 3}, "log": {"every": 4},
        "resume": {"accept_data": True}, "deepspeed": {"wall_clock_breakdown": True},
    })  # fmt: skip
    other = parse_task(
        {"name": "t", "kind": "binary", "label": "y", "compile": "auto"}
    )  # does not go with recomputed activations
    of_task = {key: other if key == "compile" else task for key in SHARED}
    for key, task in of_task.items():
        config = engine_config(task, "mgi", tmp_path, 0, 1e-3, 8, 5, "data")
        assert Config.model_fields[key].annotation == Task.model_fields[key].annotation, key
        assert getattr(config, key) == getattr(task, key) != getattr(Config(method_name="mgi"), key), key
