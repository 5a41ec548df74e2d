"""The models that come in the package. It imports nothing, so that listing them takes no time."""

BUNDLED = {"pocket": "ViL-Seg, MobileNetV2 and a small BERT, trained on Flickr8k; in the package"}
