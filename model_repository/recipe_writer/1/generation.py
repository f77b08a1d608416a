"""One request being answered: its prompt, its choices, and how far it has come."""


class Generation:
    """Mutable, and the scheduler's from `submit` on.

    `prompt` is token ids, INT64 [n]: the decoder's prefix and one more at least. `reply` takes the parts:
    `send(text, finish_reason, prompt_tokens, output_tokens)` with an empty reason but for the last, `fail(message)`,
    `is_cancelled()` and `close()`, which ends it without a part.
    """

    def __init__(self, prompt, max_tokens, sampler, pieces, reply):
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.sampler, self.pieces, self.reply = sampler, pieces, reply
        self.prefilled = 0  # tokens of the prompt that are in the cache
        self.last_token = -1
        self.output_tokens = 0

    @property
    def cached(self):
        """Tokens of it that are in the cache: all but the newest."""
        return self.prefilled + max(self.output_tokens - 1, 0)

    def advance(self, logits, *, eos, context):
        """Choose a token, send its part, and return whether that was the last."""
        token = self.sampler(logits)
        self.last_token = token
        self.output_tokens += 1
        piece = "" if token in eos else self.pieces.add(token)
        if token in eos or self.pieces.stopped:
            reason = "stop"
        elif self.output_tokens == self.max_tokens or self.cached == context:
            reason = "length"
        else:
            reason = ""
        if reason:
            piece += self.pieces.rest()
        self.reply.send(piece, reason, len(self.prompt), self.output_tokens)
        return bool(reason)
