"""Tests that need a group are left out where it is not installed."""

import pytest

from ldm.envs.groups import group


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not group(name).installed, reason=f"needs: ldm envs install {name}")
