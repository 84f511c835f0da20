"""Fast inference, one byte at a time. Imports only the heart of the package."""
