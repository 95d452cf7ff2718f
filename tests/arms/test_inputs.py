"""What an arm stands on, gathered once, and what names it."""

import pytest
from arm_cases import SEED, materials, on_a_checkpoint, settings

from fstune.arms.arm import ArmSpec
from fstune.arms.inputs import gather
from fstune.errors import InputError


def test_materials_are_gathered_once_for_all_arms_of_a_context(tmp_path):
    one = gather(settings(SEED), tmp_path)
    assert gather(settings(), tmp_path) is one
    assert gather(settings(train={"lr": 0.5}), tmp_path) is one
    assert gather(settings(task={**settings().task.__dict__, "length": 3}), tmp_path) is not one


def test_an_arm_is_made_of_the_contents_it_stands_on(tmp_path):
    data = materials(tmp_path, settings(SEED))
    arm = data.arm(settings(SEED), 2)
    assert isinstance(arm, ArmSpec)
    assert arm.seeds.index == 2
    assert (arm.train_digest, arm.evaluated_digest) == (data.train.digest, data.evaluated.digest)
    assert arm.checkpoint_digest is None


def test_a_checkpoint_that_became_another_file_makes_other_arms(tmp_path):
    arm = on_a_checkpoint(tmp_path)
    path = tmp_path / "model.pth"
    first, content = materials(tmp_path, arm), path.read_bytes()
    path.write_bytes(content)
    assert materials(tmp_path, arm) is first, "written anew, but the same"
    path.write_bytes(content + b"more")
    second = materials(tmp_path, arm)
    assert second.arm(arm, 0).digest != first.arm(arm, 0).digest
    path.unlink()
    with pytest.raises(InputError, match=r"model\.checkpoint: .*No such file"):
        materials(tmp_path, arm)
