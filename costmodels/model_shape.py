"""What a transformer looks like: the sizes from which parameters, work and memory follow.

A :class:`ModelShape` that exists is valid: heads, experts and sizes fit together.
"""

from __future__ import annotations

from dataclasses import dataclass

from synth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttention:
    """Attention whose query heads share key and value heads in groups (arXiv 2305.13245).

    With as many key heads as query heads it is multi-head attention.

    Parameters
    ----------
    heads, kv_heads
        Query heads, and key or value heads: a divisor of them.
    head_size
        Entries of one head.
    qkv_bias, output_bias
        Whether the projections have biases.
    qk_norm
        Whether queries and keys pass an RMS norm over one head.
    rotary
        Whether positions are rotated into queries and keys.
    """

    heads: int
    kv_heads: int
    head_size: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    rotary: bool = True

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise InputError(
                f"{self.heads} query heads are given with {self.kv_heads} key heads, each for as many: "
                f"give a divisor of {self.heads}"
            )

    @property
    def key_size(self) -> int:
        """Entries of one head's query or key."""
        return self.head_size

    @property
    def value_size(self) -> int:
        """Entries of one head's value."""
        return self.head_size

    @property
    def qkv_width(self) -> int:
        """Entries of a token's queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_size

    def parameters(self, hidden: int) -> int:
        """All weights of the attention."""
        matrices = hidden * self.qkv_width + self.heads * self.head_size * hidden
        biases = self.qkv_width * self.qkv_bias + hidden * self.output_bias
        return matrices + biases + 2 * self.head_size * self.qk_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: keys and values come from a latent (arXiv 2405.04434, section 2.1).

    Parameters
    ----------
    heads
        Query, key and value heads.
    query_rank
        Width of the query latent, or None where queries come from the hidden state directly.
    kv_rank
        Width of the latent of keys and values.
    plain_size, rotary_size, value_size
        Entries of one head's key without position, of the rotated part (shared by all heads), of the value.
    """

    heads: int
    query_rank: int | None
    kv_rank: int
    plain_size: int
    rotary_size: int
    value_size: int

    @property
    def kv_heads(self) -> int:
        """As many as query heads."""
        return self.heads

    @property
    def key_size(self) -> int:
        """Entries of one head's query or key."""
        return self.plain_size + self.rotary_size

    @property
    def qkv_width(self) -> int:
        """Entries of a token's queries, keys and values together, as the attention kernel sees them."""
        return self.heads * (2 * self.key_size + self.value_size)

    @property
    def down_width(self) -> int:
        """Entries of a token's latents: of keys and values, the shared rotated key, and of queries."""
        return self.kv_rank + self.rotary_size + (self.query_rank or 0)

    def parameters(self, hidden: int) -> int:
        """All weights of the attention, the norms of the latents among them."""
        queries = (self.query_rank or hidden) * self.heads * self.key_size + (self.query_rank or 0)
        up = self.kv_rank * self.heads * (self.plain_size + self.value_size) + self.kv_rank
        return hidden * self.down_width + queries + up + self.heads * self.value_size * hidden


Attention = GroupedAttention | LatentAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """Two linear layers with a non-linearity between them, or three where it is gated.

    Parameters
    ----------
    width
        Entries between the linear layers.
    gated
        Whether a second projection gates the first, as in SwiGLU (arXiv 2002.05202).
    bias
        Whether the linear layers have biases.
    """

    width: int
    gated: bool = True
    bias: bool = False

    @property
    def up_width(self) -> int:
        """Entries that the first linear layer, or both of a gated pair, put out."""
        return self.width * (2 if self.gated else 1)

    def parameters(self, hidden: int) -> int:
        """All weights."""
        biases = (self.up_width + hidden) * self.bias
        return hidden * self.up_width + self.width * hidden + biases


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts: a router sends every token to a few feed-forward experts (arXiv 2101.03961).

    Parameters
    ----------
    count, per_token
        Routed experts, and how many of them a token visits.
    expert
        One of them.
    shared
        What every token visits besides, or None.
    """

    count: int
    per_token: int
    expert: FeedForward
    shared: FeedForward | None = None

    def __post_init__(self) -> None:
        if self.per_token > self.count:
            raise InputError(
                f"{self.per_token} experts per token are given with {self.count} experts: "
                f"give at most {self.count}"
            )

    def parameters(self, hidden: int) -> int:
        """All weights, those of the router among them."""
        shared = self.shared.parameters(hidden) if self.shared else 0
        return hidden * self.count + self.count * self.expert.parameters(hidden) + shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One transformer block: attention and feed-forward, each behind a norm."""

    attention: Attention
    feed_forward: FeedForward | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleNames:
    """How the model's modules are called, as in Hugging Face: an exporter cuts the model by them.

    Parameters
    ----------
    embeddings
        The token embedding, and that of positions where it is learned.
    block
        One block, ``{}`` standing for its number.
    norm, head
        The last norm and the projection to the vocabulary.
    """

    embeddings: tuple[str, ...] = ("model.embed_tokens",)
    block: str = "model.layers.{}"
    norm: str = "model.norm"
    head: str = "lm_head"


GPT2_MODULES = ModuleNames(
    embeddings=("transformer.wte", "transformer.wpe"), block="transformer.h.{}", norm="transformer.ln_f"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer.

    Parameters
    ----------
    name
        What it is called.
    hidden, vocabulary
        Entries of a token's hidden state; tokens known.
    blocks
        From the first to the last.
    learned_positions
        Rows of a learned position embedding, 0 where positions are rotary.
    tied
        Whether the head uses the embedding's weights.
    layer_norm
        Whether norms are layer norms with gain and bias, rather than RMS norms with a gain.
    hidden_dropout, attention_dropout
        Whether training drops entries of the hidden state, of the attention weights.
    modules
        Module names.
    """

    name: str
    hidden: int
    vocabulary: int
    blocks: tuple[Block, ...]
    learned_positions: int = 0
    tied: bool = False
    layer_norm: bool = False
    hidden_dropout: bool = False
    attention_dropout: bool = False
    modules: ModuleNames = ModuleNames()

    @property
    def norm_parameters(self) -> int:
        """The weights of one norm."""
        return self.hidden * (2 if self.layer_norm else 1)

    @property
    def embedding_parameters(self) -> int:
        """The weights of the embeddings."""
        return (self.vocabulary + self.learned_positions) * self.hidden

    def block_parameters(self, block: Block) -> int:
        """The weights of one block."""
        inner = block.attention.parameters(self.hidden) + block.feed_forward.parameters(self.hidden)
        return inner + 2 * self.norm_parameters

    @property
    def parameters(self) -> int:
        """All weights, tied ones counted once."""
        head = 0 if self.tied else self.vocabulary * self.hidden
        blocks = sum(map(self.block_parameters, self.blocks))
        return self.embedding_parameters + blocks + self.norm_parameters + head
