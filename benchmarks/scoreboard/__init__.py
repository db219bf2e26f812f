"""The scoreboard: zhiyin's models on public data sets, by protocols and against figures that others published."""
