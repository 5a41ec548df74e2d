"""README's example: name every pixel of a photo. Run it from the repository's root."""

import maskfree

model = maskfree.load()  # the bundled model; no network
result = model.with_words(["building", "sky", "tree"])("examples/pagoda.jpg")
print(result.areas())  # part of the photo that each word covers
result.save("out")  # index PNG, overlay, JSON; result.labels is the label map
