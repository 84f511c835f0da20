"""The matched pair: two models that differ only in the head, trained on real text for hours.

Both read the start of enwik8 and the training part of enwiki2016, one thread each, and can be
stopped and continued at any time with the same command:

    python -m benchmarks.pair train --contender head --data head --out runs/head --minutes 120
    python -m benchmarks.pair train --contender no-head --data head --out runs/no-head --minutes 120

`finish` then trains a copy of each to its end, and `score` compares the copies on the test texts:

    python -m benchmarks.pair finish runs/head --data head --out runs/head-120
    python -m benchmarks.pair finish runs/no-head --data head --out runs/no-head-120
    python -m benchmarks.pair score --runs runs/head-120 runs/no-head-120 --data head --learn

`curves` compares runs in training, `baselines` measures classical compressors on the same texts,
`ship` writes both models as the package's pretrained models, and `report` writes the results on the
pages. The results are in ``sharnn/pretrained/pair.json``.
"""
