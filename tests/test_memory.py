"""The memory behaves like a list that keeps only its newest rows."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharnn import Memory, State


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 15), max_size=12),
    branches=st.lists(st.integers(0, 11), max_size=4),
    gradients=st.booleans(),
)
def test_any_appends_and_branches_match_plain_lists(limit, lengths, branches, gradients):
    counter = 0
    memory, plain = Memory(torch.zeros(1, 0, 1)), []
    history = [(memory, plain)]
    with torch.set_grad_enabled(gradients):
        for step, length in enumerate(lengths):
            if step in branches:  # continue from an earlier memory
                memory, plain = history[len(history) // 2]
            rows = list(range(counter, counter + length))
            counter += length
            memory = memory.append(torch.tensor(rows).float().reshape(1, -1, 1), limit)
            plain = (plain + rows)[-limit:]
            history.append((memory, plain))
    for kept, expected in history:  # later appends must not change earlier memories
        assert kept.rows.flatten().tolist() == expected
        assert len(kept) == len(expected)
        assert kept.newest(3).rows.flatten().tolist() == expected[-3:]
        assert len(kept.newest(0)) == 0


def test_without_gradients_a_row_is_appended_in_place():
    with torch.no_grad():
        memory = Memory(torch.zeros(1, 4, 2)).append(torch.ones(1, 1, 2), limit=100)
        longer = memory.append(torch.ones(1, 1, 2), limit=100)
    assert longer.rows.data_ptr() == memory.rows.data_ptr()


def test_with_gradients_appending_copies_the_rows():
    with torch.no_grad():
        memory = Memory(torch.zeros(1, 4, 2)).append(torch.ones(1, 1, 2), limit=100)
    longer = memory.append(torch.ones(1, 1, 2), limit=100)
    assert longer.rows.data_ptr() != memory.rows.data_ptr()


def test_a_state_survives_a_round_trip_through_tensors():
    memory = Memory(torch.randn(2, 3, 4))
    state = State(
        tuple((torch.randn(2, 4), torch.randn(2, 4)) for _ in range(3)), (None, memory, None)
    )
    restored = State.from_tensors(state.to_tensors(), layers=3)
    assert restored.memory[0] is None
    for name, tensor in restored.to_tensors().items():
        assert torch.equal(tensor, state.to_tensors()[name])
    half = state.map(lambda tensor: tensor[:1])
    assert half.batch_size == 1
    assert half.memory_rows == 3


def test_is_finite_detects_nan_in_the_memory():
    lstm = ((torch.zeros(1, 2), torch.zeros(1, 2)),)
    assert State(lstm, (None,)).is_finite()
    assert not State(lstm, (Memory(torch.full((1, 1, 2), torch.nan)),)).is_finite()
