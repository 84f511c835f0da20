"""The named corpora: enwik8, enwiki2016 and the sample. Imports only `sharnn.io`."""
