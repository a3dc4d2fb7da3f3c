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
with open("/proc/self/status") as file:
    status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
with open("/proc/self/oom_score_adj") as file:
    oom_score_adj = int(file.read())
described = {
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()), "umask": mask,
    "directory": os.getcwd(), "environment": dict(os.environ), "nice": os.nice(0), "oom_score_adj": oom_score_adj,
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "descriptors": sorted(descriptors), "session": os.getsid(0), "pid": os.getpid(), "group": os.getpgid(0),
    "stdin": os.readlink("/proc/self/fd/0"), "stdout": os.readlink("/proc/self/fd/1").partition(":")[0],
    "stderr": os.readlink("/proc/self/fd/2").partition(":")[0],
    "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(),
}  # fmt: skip
print(json.dumps(described), flush=True)
time.sleep(1000)
