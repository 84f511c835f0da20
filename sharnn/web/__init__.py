"""The model in a web page, in JavaScript. Imports core modules and `sharnn.exact`."""
