"""Files, threads and machine facts that several packages need."""
