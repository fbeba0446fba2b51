"""The operating system: locks, signals, memory, and its errors in one line each."""
