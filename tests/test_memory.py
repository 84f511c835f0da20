"""The memory behaves like a list of rows of which the newest are kept."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharnn import Memory, State


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 15), max_size=12),
    branches=st.lists(st.integers(0, 11), max_size=4),
    gradients=st.booleans(),
)
def test_any_appends_and_branches_equal_plain_lists(limit, lengths, branches, gradients):
    counter = 0
    memory, plain = Memory(torch.zeros(1, 0, 1)), []
    seen = [(memory, plain)]
    with torch.set_grad_enabled(gradients):
        for step, length in enumerate(lengths):
            if step in branches:  # go on from an earlier memory
                memory, plain = seen[len(seen) // 2]
            rows = list(range(counter, counter + length))
            counter += length
            memory = memory.append(torch.tensor(rows).float().reshape(1, -1, 1), limit)
            plain = (plain + rows)[-limit:]
            seen.append((memory, plain))
    for kept, expected in seen:  # later appends changed none of the earlier memories
        assert kept.rows.flatten().tolist() == expected
        assert len(kept) == len(expected)
        assert kept.newest(3).rows.flatten().tolist() == expected[-3:]
        assert len(kept.newest(0)) == 0


def test_one_more_row_is_written_in_place_without_gradients():
    with torch.no_grad():
        memory = Memory(torch.zeros(1, 4, 2)).append(torch.ones(1, 1, 2), limit=100)
        longer = memory.append(torch.ones(1, 1, 2), limit=100)
    assert longer.rows.data_ptr() == memory.rows.data_ptr()


def test_nothing_is_written_beside_rows_that_a_backward_pass_needs():
    with torch.no_grad():
        memory = Memory(torch.zeros(1, 4, 2)).append(torch.ones(1, 1, 2), limit=100)
    longer = memory.append(torch.ones(1, 1, 2), limit=100)
    assert longer.rows.data_ptr() != memory.rows.data_ptr()


def test_a_state_survives_its_tensors():
    memory = Memory(torch.randn(2, 3, 4))
    state = State(
        tuple((torch.randn(2, 4), torch.randn(2, 4)) for _ in range(3)), (None, memory, None)
    )
    again = State.from_tensors(state.to_tensors(), layers=3)
    assert again.memory[0] is None
    for name, tensor in again.to_tensors().items():
        assert torch.equal(tensor, state.to_tensors()[name])
    half = state.map(lambda tensor: tensor[:1])
    assert half.batch_size == 1
    assert half.memory_rows == 3


def test_a_state_notices_what_is_not_finite():
    lstm = ((torch.zeros(1, 2), torch.zeros(1, 2)),)
    assert State(lstm, (None,)).is_finite()
    assert not State(lstm, (Memory(torch.full((1, 1, 2), torch.nan)),)).is_finite()
