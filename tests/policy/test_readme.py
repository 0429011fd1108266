"""README's six lines, as they stand there."""

import re
from pathlib import Path

from tests.evaluate.made_run import write_model

README = Path(__file__).parents[2] / "README.md"


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(import gymnasium, ldm\n.*?)```", README.read_text(), re.S)
    write_model(tmp_path / "runs/quickstart/train/model", seed=0)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block, names)
    assert names["observation"].shape == (4,) and names["agent"].actor.num_envs == 1
    assert names["env"].action_space.contains(names["agent"].act(names["observation"]))
