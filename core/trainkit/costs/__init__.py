"""What a run will take: probe steps, the forecast of time and memory, prices."""
