"""The paper's run, end to end. Imports only core modules."""
