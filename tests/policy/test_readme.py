"""README's six lines, as they stand there."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_lines_of_the_readme_run():
    (block,) = re.findall(r"```python\n(import gymnasium, ldm\n.*?)```", README.read_text(), re.S)
    names: dict = {}
    exec(block, names)
    assert names["observation"].shape == (4,) and names["agent"].actor.num_envs == 1
    assert names["env"].action_space.contains(names["agent"].act(names["observation"]))
