"""What an acceptable array is: its header, how arrays are arranged, arrays on a GPU."""
