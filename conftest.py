"""What cannot be imported here, or is for other processes, is not searched for examples."""

import importlib.util

collect_ignore = ["tests/in_processes.py", *([] if importlib.util.find_spec("torch") else ["fastopt/torch"])]
