"""What this machine and its neighbours offer: backends, devices, memory, workers."""
