"""Analysis of the heads' attention, and the explorer that shows it. Imports only core modules."""
