"""A Hugging Face Space: the page of `maskfree serve` for everybody. See README.md beside it."""

import os

from maskfree.hub.loading import load
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.serve.run import listen, make_server

PORT = 7860  # where a Space is expected to listen

# A Space has two slow cores and strangers: smaller photos, a shorter queue.
LIMITS = Limits(max_bytes=8 * 2**20, max_pixels=12_000_000, max_words=40, max_waiting=8)

if __name__ == "__main__":
    models = Models({"pocket": load("pocket")}, LIMITS.max_words)
    access = Access(hosts=(os.environ.get("SPACE_HOST", ""),))
    with listen("0.0.0.0", PORT) as taken:
        make_server(models, access, LIMITS).run(sockets=[taken])
