"""Names to tasks, without importing what is not asked for."""

import os
import subprocess
import sys

import pytest

from tasks import registry


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(
        ValueError, match="'hotpott'; did you mean 'hotpot'\\? known: arc, constr, "
    ):
        registry.get("hotpott")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import tasks.registry", "numpy torch datasets tasks.task filelock"),
        ("import tasks.registry, tasks.splits; tasks.registry.get('hotpot')", "torch datasets"),
    ],
)
def test_tasks_import_nothing_heavy(statement, absent):
    code = f"import sys; {statement}; print(sorted(set('{absent}'.split()) & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
