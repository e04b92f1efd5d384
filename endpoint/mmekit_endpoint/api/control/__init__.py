"""The control plane: definitions of models, endpoint configurations and endpoints, over AWS's JSON 1.1."""
