"""Executes schedule documents with ``torch.distributed``. Empty so far."""
