"""What the heads attend to, and the explorer that shows it. Imports the heart only."""
