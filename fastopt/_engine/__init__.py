"""One step: its plan, gradients, chunks, threads, and the launch on CPU and GPU."""
