"""What a first GPU should do: ``python -m benchmarks gpu``, or ``make gpu``."""
