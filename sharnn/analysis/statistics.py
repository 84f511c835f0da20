"""Statistics of the heads' attention over a whole text, computed in one pass."""

from __future__ import annotations

from typing import Any

from sharnn.analysis.head_sums import HeadSums, StringSums, find_followers
from sharnn.analysis.results import AttentionStatistics
from sharnn.analysis.text_sums import SegmentQueries, TextSums
from sharnn.analysis.trace import trace_segments
from sharnn.errors import InputError
from sharnn.io.byte_sources import as_bytes
from sharnn.model import SHARNN
from sharnn.weights import usable


def attention_statistics(
    model: SHARNN,
    data: Any,
    *,
    memory_limit: int | None = None,
    segment_length: int | None = None,
    skip: int | None = None,
    min_count: int = 3,
) -> AttentionStatistics:
    """Computes statistics of the attention of all heads over a whole text.

    The text is read once and only sums are kept. Apart from the model, this takes about 150 bytes
    of memory for each byte of text.

    Args:
        model: the model; it runs in evaluation mode, and its mode is restored afterwards.
        data: bytes, a path, or a uint8 tensor or array.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.
        segment_length: bytes read at a time; None for 256 or a quarter of M, whichever is less.
        skip: number of leading bytes that are read but whose queries are not counted. None skips M
            bytes if the text is longer than 2 M, so that every counted query has a full memory,
            and otherwise none.
        min_count: minimum number of occurrences of a string to be listed as recalled.

    Returns:
        The statistics, on the CPU.

    Raises:
        InputError: the model has no attention head, the data have fewer than 2 bytes or a byte
            without a symbol in the model, ``skip`` leaves no query, another setting is not
            positive, or the model's weights or outputs contain NaN or Inf.

    Source: paper, simplified attention; the test for induction after Olsson and others, 2022.

    Example:
        >>> import torch
        >>> from sharnn.config import ModelConfig
        >>> torch.manual_seed(0) and None
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> statistics = attention_statistics(model, b"to be or not to be, " * 20)
        >>> statistics.num_queries, statistics.bins[:4], statistics.head().within(0.9) <= 100
        (299, [(1, 1), (2, 2), (3, 4), (5, 8)], True)
    """
    model = usable(model)
    if not model.config.attention_layers:
        raise InputError("attention statistics need a model with an attention head")
    source = as_bytes(data)
    size = len(source)
    if size < 2:
        raise InputError(f"attention statistics need at least 2 bytes, got {size}")
    limit = model.config.memory if memory_limit is None else memory_limit
    if limit < 1:
        raise InputError(f"memory_limit must be at least 1, got {limit}")
    if skip is None:
        skip = limit if size > 2 * limit else 0
    if not 0 <= skip <= size - 2:
        raise InputError(f"skip must be from 0 to {size - 2} for {size} bytes, got {skip}")
    if min_count < 1:
        raise InputError(f"min_count must be at least 1, got {min_count}")
    text = source[0:size].tobytes()
    text_sums = TextSums(text, limit, skip, model.embedding.weight.device)
    followers = find_followers(text)
    heads = {block: HeadSums(text_sums, followers) for block in model.config.attention_layers}
    segments = trace_segments(model, data, memory_limit=memory_limit, segment_length=segment_length)
    for segment in segments:
        if segment.start + len(segment.bits) > skip:
            queries = SegmentQueries(text_sums, segment)
            text_sums.add(queries, segment.bits[queries.num_skipped :])
            for block, sums in heads.items():
                sums.add(segment.weights[block][queries.num_skipped :], queries)
    strings = StringSums(text_sums, min_count)
    return text_sums.finish({block: sums.finish(block, strings) for block, sums in heads.items()})
