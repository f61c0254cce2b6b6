"""What of the package cannot be imported here is not searched for examples."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["fastopt/torch"]
