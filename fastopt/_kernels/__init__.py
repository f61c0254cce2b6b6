"""Access to elements, loops, compilation, the kernels on disk and their symbols, for every target."""
