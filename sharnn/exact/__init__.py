"""A model's steps, the same to the last bit on every machine. Imports core modules only."""
