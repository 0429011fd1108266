from pathlib import Path

import pytest

from ldm.envs.spec import EnvSpec


@pytest.fixture
def faulty():
    """faulty(kind, **options): the spec of an environment that misbehaves so (faulty.py)."""

    def spec(kind: str, **options) -> EnvSpec:
        return EnvSpec(
            id=f"faulty/{kind}",
            library="faulty",
            make=kind,
            backend="worker",
            domain="games",
            modality="mixed",
            base_task="faulty",
            horizon=100,
            licence="Apache-2.0",
            adapter=str(Path(__file__).with_name("faulty.py")),
            options=options,
        )

    return spec
