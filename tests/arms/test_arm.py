import dataclasses
import json
import os
import subprocess
import sys
from typing import Any, get_args

import pytest
from arm_cases import SEED, SHAPES, TASK, TRAIN, outcome, settings
from hypothesis import given
from hypothesis import strategies as st

from fstune.arms.arm import ArmSpec, Pair, Seeds
from fstune.files import derive_seed, digest_of
from fstune.specs.settings import (
    ArmEvaluation,
    ArmSettings,
    ModelSettings,
    TrainSettings,
    VariedSeeds,
)
from model.config import ModelConfig, WkvBackend
from model.future_seed import Schedule
from model.mechanisms import registry as mechanisms
from model.optimizers.muon import MuonSettings
from model.wkv import BACKENDS
from tasks import registry


def names_of(settings_type: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings_type)}


CHECKPOINT = {"checkpoint": "/here/model.pth"}
HOTPOT = {
    "name": "hotpot",
    "train_size": 8,
    "validation_size": 4,
    "files": {"train": "/here/train.jsonl", "validation": "/here/validation.jsonl"},
}

SIZED = {
    "train_size": 9,
    "validation_size": 5,
    "data_seed": 1,
    "train_sample": 1,
    "control": "repeat_prompt",
}
SPAN = SIZED | {"length": 3, "alphabet": "ab", "mask": "?"}
SORTED = SIZED | {"pairs": 3, "key_width": 3, "value_width": 3, "alphabet": "abcdefgh"}
LISTED = SIZED | {
    "order": "query_first",
    "names": 5,
    "name_width": 3,
    "alphabet": "abcdefghijkl",
}
PAIRED = SIZED | {
    "pairs": 3,
    "key_width": 3,
    "value_width": 3,
    "key_alphabet": "abcdefgh",
    "value_alphabet": "abcdefgh",
}
HIDDEN = SIZED | {"order": "query_first", "lengths": (512,), "depths": (0.5,), "digits": 3}
CHAIN = {
    "min_residues": 70,
    "max_residues": 300,
    "max_prompt_tokens": 200,
}
ASKED = CHAIN | {"order": "queries_first", "fill_to": 2500}
BOARD = SIZED | {"side": 9, "blanks": 5, "mask": "prefix"}

# Another value for every field that decides what an arm computes. A field that is not listed here
# makes a test below fail: whoever adds one says whether it counts.
HUB = SIZED | {
    "hub": "another/set",
    "hub_config": "another",
    "hub_revision": "abc",
    "columns": {"question": "q"},
}
TRANSCRIBED = HUB | {
    "columns": {"text": "page"},
    "min_chars": 20,
    "max_chars": 90,
    "max_prompt_tokens": 100,
    "fill_to": 600,
}
OTHER: dict[str, dict[str, Any]] = {
    "train": {
        "lr": 2e-2,
        "optimizer": "muon",
        "parameters": "gates",
        "betas": (0.9, 0.99),
        "weight_decay": 0.5,
        "batch_size": 4,
        "grad_clip": 0.5,
        "lr_schedule": "cosine",
        "lr_warmup_steps": 2,
        "lr_total_steps": 9,
        "first_token_weight": 2.0,
        "seed": 1,
    },
    "future_seed": {
        "layer_start": 2,
        "gate": "head",
        "alpha": 0.5,
        "alpha_lr": 0.2,
        "schedule": {"kind": "linear", "min": 0.5},
        "norm": True,
        "clip": 1.0,
        "detach": True,
        "seed_scale": 0.5,
    },
    "schedule": {"kind": "cosine", "min": 0.25, "max": 2.0},
    "learned_state": {"layer_start": 1, "lr": 0.5},
    "second_pass": {
        "layer_start": 1,
        "gate": "head",
        "alpha": 0.5,
        "alpha_lr": 0.2,
        "norm": True,
        "detach": True,
    },
    "muon": {
        "lr": 0.5,
        "momentum": 0.5,
        "nesterov": False,
        "steps": 4,
        "scale": "match_rms_adamw",
    },
    "evaluation": {"weights": "last", "mean_decay": 0.9, "cooldown": 0.5, "cooled_at": (4, 8)},
    "model": {"precision": "bf16", "tokenizer": "bytes", "wkv": "chunked"},
    "init": {name: 2 * value for name, value in SHAPES.items()},
    "rightcopy": {
        "train_size": 11,
        "validation_size": 7,
        "data_seed": 1,
        "train_sample": 1,
        "control": "repeat_prompt",
        "length": 3,
        "alphabet": "ab",
        "mask": "?",
    },
    "arc": HUB | {"order": "question_first", "max_prompt_tokens": 100},
    "hotpot": HUB
    | {
        "order": "question_first",
        "max_prompt_tokens": 100,
        "min_prompt_tokens": 1,
        "max_answer_tokens": 3,
        "generate": False,
    },
    "mbpp": HUB
    | {
        "columns": {"text": "prompt"},
        "order": "problem_last",
        "notes": False,
        "max_prompt_tokens": 100,
        "max_answer_tokens": 3,
        "execute": "unisolated",
        "samples": 2,
        "k": 2,
        "temperature": 0.2,
        "top_p": 0.5,
    },
    "squad": HUB
    | {
        "order": "question_first",
        "max_prompt_tokens": 100,
        "fill_to": 600,
        "max_answer_tokens": 3,
        "generate": False,
    },
    "constr": SPAN,
    "copy_a2q": SPAN,
    "kvsort": SORTED | {"mask": "?"},
    "kvsort_after": SORTED,
    "middlematch": LISTED,
    "nameindex": LISTED,
    "needle": HUB | HIDDEN | {"columns": {"text": "page"}, "distractors": 2},
    "passkey": HIDDEN,
    "punctuation": TRANSCRIBED | {"max_answer_tokens": 99, "generate": False},
    "punctuation_inplace": TRANSCRIBED | {"stride": 3},
    "permfill": SIZED
    | {"items": 5, "anchors": 1, "alphabet": "0123456789abcdefghijkl", "mask": "?"},
    "protein_contact": HUB
    | ASKED
    | {
        "pairs": 5,
        "sampling": "random",
        "min_separation": 6,
        "bounds": (7.0, 9.0),
        "columns": {"seq": "s"},
    },
    "protein_ss": HUB | ASKED | {"queries": 5, "region": "prefix", "columns": {"Sequence": "s"}},
    "protein_ss_inplace": HUB | CHAIN | {"stride": 3, "columns": {"Sequence": "s"}},
    "retrieval": PAIRED | {"order": "query_first"},
    "retrieval_a2q": PAIRED | {"mask": "?"},
    "sudoku": BOARD,
    "sudoku_after": BOARD,
}
WITHOUT_EFFECT = {
    "train": {"muon"},  # counts while it is the optimizer, see below
    "model": {"checkpoint", "init"},  # their contents count, see below
} | {
    # No arm sees the test split, and what is in files has a digest.
    name: {"name", "test_size", "files"} & names_of(registry.get(name).Settings)
    for name in registry.names()
}
FIELDS = {
    "train": set(TrainSettings.model_fields),
    "schedule": names_of(Schedule),
    "evaluation": set(ArmEvaluation.model_fields),
    "model": set(ModelSettings.model_fields),
    "init": names_of(ModelConfig),
    "muon": names_of(MuonSettings),
    **{name: names_of(mechanisms.get(name).Settings) for name in mechanisms.names()},
    **{name: names_of(registry.get(name).Settings) for name in registry.names()},
}


def arm(changed: ArmSettings | None = None, **changes: Any) -> ArmSpec:
    values: dict[str, Any] = {
        "settings": changed or settings(SEED),
        "seeds": Seeds(0, 1, 2, 3),
        "checkpoint_digest": None,
        "train_digest": "train",
        "evaluated_digest": "validation",
        "task_version": 1,
    }
    return ArmSpec(**values | changes)


def with_change(section: str, changes: dict[str, Any]) -> ArmSettings:
    """Settings in which one section has some values more."""
    if section == "train":
        return settings(SEED, train=changes)
    if section == "future_seed":
        return settings(SEED | changes)
    if section in mechanisms.names():
        return settings(**{section: changes})
    if section == "muon":
        return settings(train={"optimizer": "muon", "muon": changes})
    if section == "schedule":
        return settings(SEED | {"schedule": {"kind": "linear", "min": 0.5} | changes})
    if section == "evaluation":
        at_rest = {"weights": "mean", "cooldown": 0.2, "cooled_at": (8,)}
        return settings(SEED, evaluation=at_rest | changes)
    if section == "model":
        return settings(SEED, model={"init": SHAPES} | changes)
    if section == "init":
        return settings(SEED, model={"init": SHAPES | changes})
    least = {"name": section, "train_size": 10, "validation_size": 6}
    plain = {"rightcopy": TASK, "hotpot": HOTPOT}
    plain["mbpp"] = least | {"execute": True, "samples": 3}
    return settings(SEED, task=plain.get(section, least) | changes)


@pytest.mark.parametrize("name", ["step", "seed_index", "examples"])
def test_a_pair_is_of_one_step_one_seed_and_one_split(name):
    baseline = outcome([1, 0])
    other = {"step": 11, "seed_index": 1, "examples": "another"}[name]
    with pytest.raises(ValueError, match=rf"a pair has one {name}, got .*{other} for the variant"):
        Pair(baseline, outcome([1, 0], **{name: other}))


def test_a_pairs_arms_times_and_tokens_may_differ():
    pair = Pair(
        outcome([1, 0], arm="baseline"),
        outcome([0, 1], arm="variant", train_tokens=5, train_wall_s=2.0, ended_at=3.0),
    )
    assert pair.step == 10


@pytest.mark.parametrize("section", FIELDS)
def test_every_setting_is_known_to_count_or_not(section):
    assert set(OTHER[section]) == FIELDS[section] - WITHOUT_EFFECT.get(section, set())


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section in OTHER for name in OTHER[section]]
)
def test_a_setting_that_counts_changes_the_digest(section, name):
    plain = with_change(section, {})
    changed = with_change(section, {name: OTHER[section][name]})
    assert arm(changed).digest != arm(plain).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": Seeds(1, 1, 2, 3)},
        {"seeds": Seeds(0, 3, 2, 3)},
        {"seeds": Seeds(0, 1, 3, 3)},
        {"seeds": Seeds(0, 1, 2, 4)},
        {"checkpoint_digest": "another"},
        {"train_digest": "another"},
        {"evaluated_digest": "another"},
        {"task_version": 2},
    ],
    ids=str,
)
def test_seeds_and_contents_change_the_digest(changes):
    assert arm(**changes).digest != arm().digest


def test_arms_of_which_all_is_trained_keep_the_digests_that_they_had():
    assert "parameters" not in arm().as_json()["settings"]["train"]


@pytest.mark.parametrize("chosen", [{}, {"evaluation": {"weights": "last", "cooldown": 0.0}}])
def test_arms_of_the_last_weights_keep_the_digests_that_they_had(chosen):
    assert arm(settings(**chosen)).digest == "ade745471fcbb7f1"
    assert arm(settings(SEED, **chosen)).digest == "34e7e933dacff824"


def test_arms_that_leave_the_back_end_open_keep_the_digests_that_they_had():
    assert arm().digest == "34e7e933dacff824"
    assert arm(settings(SEED, model={"init": SHAPES, "wkv": "auto"})).digest == arm().digest


def test_the_back_ends_that_a_spec_may_name_are_those_that_there_are():
    assert get_args(WkvBackend) == ("auto", *BACKENDS)


def test_settings_of_an_optimiser_count_while_it_is_the_one():
    plain = arm().digest
    assert arm(settings(SEED, train={"muon": {"lr": 0.5}})).digest == plain
    muon = settings(SEED, train={"optimizer": "muon"})
    written_out = {"optimizer": "muon", "muon": dataclasses.asdict(MuonSettings())}
    assert arm(muon).digest == arm(settings(SEED, train=written_out)).digest != plain


def test_a_baseline_is_another_arm_than_a_variant():
    assert arm(settings()).digest != arm().digest


def test_where_files_lie_does_not_change_the_digest():
    here = settings(model=CHECKPOINT, task=HOTPOT)
    elsewhere = settings(
        model={"checkpoint": "/there/renamed.pth"},
        task=HOTPOT | {"files": {"train": "/there/a.jsonl", "validation": "/there/b.jsonl"}},
    )
    assert arm(here, checkpoint_digest="x").digest == arm(elsewhere, checkpoint_digest="x").digest


def test_a_whole_number_is_the_same_setting_as_its_float():
    written = {"model": {"init": SHAPES}, "task": TASK, "train": TRAIN}
    whole, broken = (
        ArmSettings.model_validate_json(json.dumps(written | {"future_seed": {"alpha": alpha}}))
        for alpha in (-3, -3.0)
    )
    assert arm(whole).digest == arm(broken).digest


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_digest_is_the_same_in_every_process(hash_seed):
    code = """if True:
        import sys
        from fstune.arms.arm import ArmSpec, Seeds
        from fstune.specs.settings import ArmSettings
        settings = ArmSettings.model_validate_json(sys.argv[1])
        print(ArmSpec(settings, Seeds(0, 1, 2, 3), None, "train", "validation", 1).digest)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, settings(SEED).model_dump_json()],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == arm().digest


def test_the_digest_is_of_sorted_and_unescaped_json():
    assert digest_of({"b": [1, 2.5], "a": "é"}) == digest_of({"a": "é", "b": [1, 2.5]})
    assert digest_of([1, 2]) != digest_of([2, 1])


Key = st.tuples(
    st.integers(0, 2**63), st.sampled_from(["init", "order", "data"]), st.integers(0, 10_000)
)


@given(st.lists(Key, min_size=2, max_size=30, unique=True))
def test_seed_streams_do_not_meet(keys):
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_a_seed_depends_on_its_own_place_alone():
    seeds = [Seeds.derive(7, index) for index in range(5)]
    assert [seed.index for seed in seeds] == [0, 1, 2, 3, 4]
    assert len({value for seed in seeds for value in (seed.init, seed.order)}) == 10
    assert Seeds.derive(7, 3) == seeds[3]
    assert Seeds.derive(8, 3) != seeds[3]
    held = [Seeds.derive(7, index, VariedSeeds(order=False)) for index in range(5)]
    assert {seed.order for seed in held} == {seeds[0].order}
    assert [seed.init for seed in held] == [seed.init for seed in seeds]
    assert [seed.generation for seed in held] == [seed.generation for seed in seeds]
    assert all(0 <= value < 2**48 for seed in seeds for value in (seed.init, seed.order))
