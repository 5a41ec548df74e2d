"""README's example: name every pixel of a photo. Run it from the repository's root."""

import maskfree

model = maskfree.load()  # the bundled model; no network
result = model.with_words(["cup", "spoon", "table"])("examples/coffee.jpg")
print(result.areas())  # part of the photo that each word covers
result.save("out")  # index PNG, overlay, JSON; result.labels is the label map
