"""A program that makes a daemon of itself: fork, setsid, fork, and its descriptors closed; the rest depends on argv.

`stay`: the process that was started waits for ever beside its daemon. `leave`: it ends at once, as daemons do.
`clean`: it waits, too, and its daemon has thrown its environment away, has a session of its own, and ignores TERM.
"""

import os
import signal
import sys
import time

how, marker = sys.argv[1:3]
if how == "clean":
    time.sleep(0.2)  # as one that reads its configuration first
if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.chdir("/")
    for descriptor in range(3):
        os.close(descriptor)
        os.open(os.devnull, os.O_RDWR)
    if how == "clean":
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
        os.execve(sys.executable, [sys.executable, "-S", "-c", code, marker], {})
    time.sleep(1000)
os.wait()
if how == "leave":
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
time.sleep(1000)
