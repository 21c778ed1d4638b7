"""Where tokens stand in a forward pass: every pair's common prefix once, its answers as branches behind it.

One packed row holds all groups of a micro-batch, one after the other and without padding::

    group 0                                  group 1
    [ trunk ........ | branch 0 | branch 1 ] [ trunk ..... | branch 0 ] ...

The trunk is the longest common token prefix of the group's sequences (prompt, image and whatever first words the
answers share); a branch is what follows it in one sequence. ``reward.forward.attention`` keeps branches from seeing
each other, ``positions`` lets each go on where the trunk ended, so every token is computed as in a row of its own. The
last token of a sequence predicts nothing and is left out. ``pack`` and ``unpack`` are inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: ``ids`` is prompt and response together, the response begins at ``prompt``."""

    ids: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, slots=True)
class Group:
    """Where one trunk and its branches stand in the packed row: trunk [start, fork), branch k [ends[k-1], ends[k])
    with ``ends[-1]`` read as ``fork``. Nothing is read before ``read``, the prompt's last token."""

    start: int
    fork: int
    ends: tuple[int, ...]
    read: int = 0

    @property
    def branches(self) -> tuple[tuple[int, int], ...]:
        """(first, end) of each branch; empty where first == end."""
        return tuple(zip((self.fork, *self.ends[:-1]), self.ends, strict=True))

    @property
    def end(self) -> int:
        """One past the group's last token."""
        return self.ends[-1]


@dataclass(frozen=True, slots=True)
class Packed:
    """S sequences in N tokens; the response tokens of all sequences are E entries, shared first words counted once.

    - ``ids`` int64 [N]: what the model reads
    - ``offsets`` int64 [N]: how far a token is from the start of its sequence, which is its position in text-only RoPE
    - ``groups``: in order, together all N tokens
    - ``read``, ``targets`` int64 [E]: entry e is log p(targets[e]) read from the hidden state at ``read[e]``
    - ``entries``, ``owners`` int64 [M]: entry ``entries[m]`` belongs to sequence ``owners[m]``; sequences count through
      the groups in order
    - ``sequences``: S
    """

    ids: Tensor
    offsets: Tensor
    groups: tuple[Group, ...]
    read: Tensor
    targets: Tensor
    entries: Tensor
    owners: Tensor
    sequences: int

    def sums(self, logps: Tensor) -> Tensor:
        """Entry log-probs [E] added up per sequence, float64 [S]."""
        return _sums(logps[self.entries.to(logps.device)], self.owners, self.sequences)


def pack(groups: Sequence[Sequence[Row]]) -> Packed:
    """Lay out groups of sequences that read the same prompt and images.

    Raises ``ValueError`` if a response is empty or a group's prompts differ: the trunk must reach over the images.
    """
    ids: list[int] = []
    offsets: list[int] = []
    placed: list[Group] = []
    read: list[int] = []
    targets: list[int] = []
    entries: list[int] = []
    owners: list[int] = []
    sequence = 0
    for rows in groups:
        head = rows[0].ids[: rows[0].prompt]
        if any(len(row.ids) <= row.prompt or row.ids[: row.prompt] != head for row in rows):
            raise ValueError("the sequences of a group need the same prompt and a response each")
        trunk = len(head) + common_prefix([row.ids[row.prompt : -1] for row in rows])
        start, fork = len(ids), len(ids) + trunk
        ids += rows[0].ids[:trunk]
        offsets += range(trunk)
        ends = []
        entry_of: dict[tuple[int, int], int] = {}  # (where read, which token) -> entry
        for row in rows:
            first = len(ids)
            ids += row.ids[trunk:-1]
            offsets += range(trunk, len(row.ids) - 1)
            ends.append(len(ids))
            for place in range(row.prompt - 1, trunk):
                key = (start + place, row.ids[place + 1])
                if key not in entry_of:
                    entry_of[key] = len(read)
                    read.append(start + place)
                    targets.append(row.ids[place + 1])
                entries.append(entry_of[key])
            entries += range(len(read), len(read) + len(ids) - first)
            read += range(first, len(ids))
            targets += row.ids[trunk + 1 :]
            owners += [sequence] * (len(row.ids) - row.prompt)
            sequence += 1
        placed.append(Group(start, fork, tuple(ends), start + len(head) - 1))
    return Packed(
        ids=torch.tensor(ids),
        offsets=torch.tensor(offsets),
        groups=tuple(placed),
        read=torch.tensor(read),
        targets=torch.tensor(targets),
        entries=torch.tensor(entries),
        owners=torch.tensor(owners),
        sequences=sequence,
    )


def unpack(packed: Packed) -> list[list[Row]]:
    """The groups that ``pack`` was given."""
    result = []
    sequence = 0
    for group in packed.groups:
        rows = []
        for first, end in group.branches:
            seen = [*packed.ids[group.start : group.fork].tolist(), *packed.ids[first:end].tolist()]
            mine = packed.entries[packed.owners == sequence]
            response = packed.targets[mine].tolist()
            rows.append(Row((*seen, response[-1]), len(seen) + 1 - len(response)))
            sequence += 1
        result.append(rows)
    return result


def _sums(logps: Tensor, owners: Tensor, sequences: int) -> Tensor:
    # In float64: a sum of -1000 has steps of 6e-5 in float32, more than policy and reference may differ by.
    result = torch.zeros(sequences, dtype=torch.float64, device=logps.device)
    return result.index_add(0, owners.to(logps.device), logps.double())


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """The length of the longest prefix that all sequences share.

    >>> common_prefix([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False)))


@dataclass(frozen=True, slots=True)
class Padded:
    """The naive layout: S sequences in rows of their own, padded at the end to the longest, T tokens each.

    - ``ids``, ``mask`` int64 [S, T]: tokens (0 on padding), and 1 on tokens
    - ``read``, ``targets``, ``owners`` int64 [E]: entry e is log p(targets[e]) read from position ``read[e]`` of the
      flattened S x T states, and belongs to sequence ``owners[e]``
    """

    ids: Tensor
    mask: Tensor
    read: Tensor
    targets: Tensor
    owners: Tensor

    @property
    def sequences(self) -> int:
        """S."""
        return self.ids.shape[0]

    def sums(self, logps: Tensor) -> Tensor:
        """Entry log-probs [E] added up per sequence, float64 [S]."""
        return _sums(logps, self.owners, self.sequences)


def pad(rows: Sequence[Row], padding: int) -> Padded:
    """One row a sequence, ``padding`` behind its end. The last response token is read, as TRL does."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    read: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
        read += range(i * width + row.prompt - 1, i * width + len(row.ids) - 1)
        targets += row.ids[row.prompt :]
        owners += [i] * (len(row.ids) - row.prompt)
    return Padded(ids, mask, torch.tensor(read), torch.tensor(targets), torch.tensor(owners))
