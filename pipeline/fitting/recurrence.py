"""The recurrence of LSTMs, with its gradient by hand: two directions of all members at once.

Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000). What autograd would
record as a dozen small operations a step, forwards and again backwards, is done in place; sequences
are short and states small, so that the number of operations is what takes time.
"""

from typing import Any

import torch

GATES = 4
"""Enter, forget, leave, candidate: their order in the last axis of weights and gates."""


def gate_scale(hidden: int) -> torch.Tensor:
    """(4 h,) by which weights of gates are multiplied: tanh(z) = 2 sigmoid(2 z) - 1.

    With this, one sigmoid serves all gates, at a fraction of the time that tanh takes.
    """
    return torch.tensor([1.0, 1.0, 1.0, 2.0]).repeat_interleave(hidden)


def run_recurrence(
    gates: torch.Tensor, recurrence: torch.Tensor, inside: torch.Tensor | None
) -> torch.Tensor:
    """Run S LSTMs over T steps, differentiably.

    Args:
        gates: (S, T, B, 4 h), the inputs' part of what the gates are the sigmoids of, scaled.
        recurrence: (S, h, 4 h) weights from the state to the gates, scaled.
        inside: (T, S, B, 1), False where a step changes nothing; None if all change.

    Returns:
        States (T, S, B, h).
    """
    states: torch.Tensor = _Recurrence.apply(gates, recurrence, inside)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch gives its type no name
        gates: torch.Tensor,
        recurrence: torch.Tensor,
        inside: torch.Tensor | None,
    ) -> torch.Tensor:
        lstms, steps, batch, width = gates.shape
        hidden = width // GATES
        opened = gates.new_empty(steps, lstms, batch, width)
        states = gates.new_empty(steps, lstms, batch, hidden)
        squashed = torch.empty_like(states)  # tanh of the cells
        cells = gates.new_zeros(steps + 1, lstms, batch, hidden)
        state = cells[0]
        for t in range(steps):
            torch.baddbmm(gates[:, t], state, recurrence, out=opened[t])
            enter, forget, leave, candidate = opened[t].sigmoid_().chunk(GATES, dim=-1)
            cell = torch.mul(forget, cells[t], out=cells[t + 1])
            cell.addcmul_(enter, candidate, value=2).sub_(enter)
            torch.mul(cell, 2, out=squashed[t]).sigmoid_().mul_(2).sub_(1)
            torch.mul(leave, squashed[t], out=states[t])
            if inside is not None:
                torch.where(inside[t], states[t], state, out=states[t])
                torch.where(inside[t], cell, cells[t], out=cell)
            state = states[t]
        ctx.save_for_backward(opened, squashed, cells, states, recurrence, inside)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # noqa: ANN401
        # (T, S, B, h) by states to (S, T, B, 4 h) by gates and (S, h, 4 h) by the recurrence.
        opened, squashed, cells, states, recurrence, inside = ctx.saved_tensors
        steps, lstms, batch, width = opened.shape
        by_gates = opened.new_empty(lstms, steps, batch, width)
        by_cell = torch.zeros_like(states[0])
        by_state = torch.zeros_like(states[0])
        back = recurrence.transpose(1, 2)  # (S, 4 h, h)
        slope = torch.empty_like(opened[0])
        for t in reversed(range(steps)):
            by_state = by_state + gradient[t]  # (S, B, h)
            kept_state = kept_cell = None
            if inside is not None:
                kept_state, kept_cell = by_state * ~inside[t], by_cell * ~inside[t]
                by_state, by_cell = by_state * inside[t], by_cell * inside[t]
            by_gate = by_gates[:, t]  # (S, B, 4 h)
            _through_cell(opened[t], squashed[t], cells[t], by_state, by_cell, by_gate)
            torch.mul(opened[t], opened[t], out=slope)
            by_gate.mul_(torch.sub(opened[t], slope, out=slope))  # sigmoid' = s - s²
            by_state = torch.bmm(by_gate, back)
            if kept_state is not None and kept_cell is not None:
                by_state, by_cell = by_state + kept_state, by_cell + kept_cell
        before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])  # (T, S, B, h)
        flat = before.transpose(0, 1).flatten(1, 2)  # (S, T * B, h)
        by_recurrence = torch.bmm(flat.transpose(1, 2), by_gates.flatten(1, 2))  # (S, h, 4 h)
        return by_gates, by_recurrence, None


def _through_cell(
    opened: torch.Tensor,
    squashed: torch.Tensor,
    cell_before: torch.Tensor,
    by_state: torch.Tensor,
    by_cell: torch.Tensor,
    by_gate: torch.Tensor,
) -> None:
    """One step of the gradient: `by_gate` (S, B, 4 h) is set, `by_cell` (S, B, h) is moved back."""
    enter, forget, leave, candidate = opened.chunk(GATES, dim=-1)  # (S, B, h) each
    by_enter, by_forget, by_leave, by_candidate = by_gate.chunk(GATES, dim=-1)
    torch.mul(by_state, squashed, out=by_leave)
    slope = (squashed * squashed).neg_().add_(1)  # tanh' = 1 - tanh²
    by_cell.add_(slope.mul_(leave).mul_(by_state))
    torch.mul(by_cell, candidate, out=by_enter).mul_(2).sub_(by_cell)
    torch.mul(by_cell, cell_before, out=by_forget)
    torch.mul(by_cell, enter, out=by_candidate).mul_(2)
    by_cell.mul_(forget)
