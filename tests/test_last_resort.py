"""The command's process ends, whatever its threads do."""

import subprocess
import sys
import time

BUSY = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from orchestra_strategy import cli
cli._GRACE = 0.5
# Python's end would wait for either, for the pool's before the main thread counts as ended.
threading.Thread(target=time.sleep, args=(60,)).start()
ThreadPoolExecutor().submit(time.sleep, 60)
sys.argv = ["orchestra-fl", *{arguments}]
sys.exit(cli.process())
"""


def ended(*arguments):
    begun = time.monotonic()
    program = BUSY.replace("{arguments}", repr(arguments))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=40)
    return done.returncode, time.monotonic() - begun


def test_with_a_thread_at_work():
    for arguments, code in ((["certs", "a", "--days", "0"], 2), (["--version"], 0), (["nono"], 2)):
        got, seconds = ended(*arguments)
        assert got == code
        assert seconds < 30
