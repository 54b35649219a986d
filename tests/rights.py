"""Commands that may not write everywhere: root, as whom tests may run, first gives up that right."""

import os
import shutil

import pytest

IS_ROOT = os.geteuid() == 0
GIVEN_UP = "-dac_override,-dac_read_search"
WITHOUT_RIGHTS = ["setpriv", f"--bounding-set={GIVEN_UP}", f"--inh-caps={GIVEN_UP}"] if IS_ROOT else []
"""What stands before such a command."""
needs_limits = pytest.mark.skipif(IS_ROOT and shutil.which("setpriv") is None, reason="root may write anywhere")
