"""One seed per sample, from what the sample is and from nothing else (not from shard, worker or order)."""

from __future__ import annotations

import hashlib

#: vLLM numbers the n samples of a request seed, seed+1, ..., and torch takes seeds below 2**63. 62 bits leave room for
#: any n, and make it practically impossible that the ranges of two requests touch.
BITS = 62


def derive(run_seed: int, prompt_id: str, model: str, sample_index: int = 0) -> int:
    """A seed in ``[0, 2**62)``.

    Hashing spaces the seeds: were neighbouring prompts given neighbouring seeds, an engine that counts up from the
    request's seed would draw the same random numbers for sample 1 of one prompt and sample 0 of the next.

    >>> derive(0, "a", "m") == derive(0, "a", "m"), derive(0, "a", "m") == derive(1, "a", "m")
    (True, False)
    """
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    text = f"{run_seed}|{len(prompt_id)}:{prompt_id}|{len(model)}:{model}|{sample_index}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - BITS)
