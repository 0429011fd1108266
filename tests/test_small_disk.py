"""`python -m tests.small_disk` as a test: it needs a mount namespace, which some systems lack."""

import shutil
import subprocess

import pytest

from tests import small_disk

pytestmark = pytest.mark.slow


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(mount, capture_output=True).returncode == 0


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not can_mount(), reason="no mount namespace here (unshare -rm)")
def test_every_command_says_in_one_line_that_it_cannot_write_and_goes_on_with_room():
    assert small_disk.main([]) == 0
