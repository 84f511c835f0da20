"""Files, locks, checksums and terminal output. Imports only `sharnn.errors`."""
