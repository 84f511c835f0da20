"""The memory behaves like a list that keeps only its newest rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharnn import InputError, Memory, State, Stepper
from small import small_model


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


OTHERS = {
    "head in another block": {"attention_layers": (0,)},
    "one more head": {"attention_layers": (1, 2)},
    "no head": {"attention_layers": ()},
    "width": {"dim": 20},
    "layers": {"layers": 2},
}


def state_of(model, streams=2):
    return model(torch.zeros(streams, 5, dtype=torch.long))[1]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_state_of_another_model_is_refused(other):
    model, state = small_model(), state_of(small_model(**other))
    x = torch.zeros(2, 3, dtype=torch.long)
    for use in (
        lambda: model(x, state),
        lambda: model.step(x[:, 0], state),
        lambda: model.forward_with_attention(x, state),
        lambda: Stepper(model, 2).load_state(state),
        lambda: Stepper(model, 2).load_state([state.map(lambda t: t[:1])] * 2),
    ):
        with pytest.raises(InputError, match=r"belongs to another model|has 2 layers, the model 3"):
            use()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: State(state.lstm[:2], state.memory),
        lambda state: State(state.lstm, state.memory[:2]),
        lambda state: State(tuple((h, c[:1]) for h, c in state.lstm), state.memory),
        lambda state: State(tuple((h[:, :9], c) for h, c in state.lstm), state.memory),
        lambda state: State(
            state.lstm, tuple(m and m.map(lambda rows: rows[:1]) for m in state.memory)
        ),
        lambda state: State(state.lstm, (None,) * 3),
        lambda state: (state.lstm, state.memory),
    ],
)
def test_a_state_with_other_shapes_is_refused(change):
    model = small_model()
    state = change(state_of(model))
    for use in (
        lambda: model(torch.zeros(2, 3, dtype=torch.long), state),
        lambda: Stepper(model, 2).load_state([state]),
    ):
        with pytest.raises(InputError, match="state") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_memory_may_be_empty_or_longer_than_the_limit():
    model, x = small_model(), torch.zeros(2, 3, dtype=torch.long)
    state = state_of(model)
    empty = State(state.lstm, tuple(m if m is None else m.newest(0) for m in state.memory))
    assert model(x, empty)[1].memory_rows == 3
    assert model(x, state, memory_limit=2)[1].memory_rows == 2
