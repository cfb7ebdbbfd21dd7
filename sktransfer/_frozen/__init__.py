"""From images to the activations of frozen stages, each computed once: read `_backbones` first, `_extraction` last."""
