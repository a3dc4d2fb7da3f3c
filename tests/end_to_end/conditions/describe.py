"""A unit that prints, as one line of JSON, what it was started with; then it waits to be stopped."""

import json
import os
import resource
import time

mask = os.umask(0)
descriptors = []
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
    except OSError:  # the listing's own, closed by now
        continue
    descriptors.append(int(name))
print(
    json.dumps(
        {
            "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()), "umask": mask,
            "directory": os.getcwd(), "environment": dict(os.environ), "nice": os.nice(0),
            "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
            "descriptors": sorted(descriptors), "session": os.getsid(0), "pid": os.getpid(), "group": os.getpgid(0),
            "stdin": os.readlink("/proc/self/fd/0"), "stdout": os.readlink("/proc/self/fd/1").partition(":")[0],
            "stderr": os.readlink("/proc/self/fd/2").partition(":")[0],
            "ignored": [line for line in open("/proc/self/status") if line.startswith("SigIgn")][0].split()[1],
            "blocked": [line for line in open("/proc/self/status") if line.startswith("SigBlk")][0].split()[1],
        }
    ),
    flush=True,
)  # fmt: skip
time.sleep(1000)
