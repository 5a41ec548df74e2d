"""README's example: name every pixel of a photo. Run it from the repository's root."""

import maskfree

model = maskfree.load()  # the bundled model; no network
result = model("examples/pagoda.jpg", words=["building", "sky", "tree"])
print(result.areas())  # fraction of the photo per word
result.save("out")  # label map, overlay, JSON; result.labels is the label map
