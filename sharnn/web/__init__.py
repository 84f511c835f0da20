"""The model in a web page, in JavaScript and WebAssembly. Imports only core modules."""
