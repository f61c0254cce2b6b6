"""How a number lies in memory: codecs, 8-bit blocks, layouts, random bits, and their evaluation by NumPy."""
