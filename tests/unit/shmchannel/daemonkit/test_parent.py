"""parent: does a process end with its parent, however that ends?"""

from __future__ import annotations

import subprocess
import sys


def test_a_process_is_told_of_the_end_of_its_parent() -> None:
    """The parent is killed, and the child writes to the pipe of both."""
    inner = (
        "import os, signal, sys\n"
        "from shmchannel.daemonkit import parent\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "assert not parent.end_with(os.getppid() + 1)\n"
        "assert parent.end_with(os.getppid())\n"
        "parent.name_process('a-name-of-more-than-15')\n"
        "print(open('/proc/self/comm').read().strip(), flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "print('ends', flush=True)\n"
    )
    outer = f"import subprocess, sys, os\nsubprocess.Popen([sys.executable, '-c', {inner!r}])\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "a-name-of-more-\n"
        parent.kill()
        assert parent.stdout.readline() == "ends\n"
